/* An SMTP sink that costs as little as it can, so that the client is what is measured: one process, epoll, replies of one read in one write.
 *
 *     sink PORT LEDGER [chunking]
 *
 * It takes everything and checks nothing; it offers PIPELINING, 8BITMIME, SIZE and, when asked, CHUNKING. The ledger has sixteen octets for
 * each MAIL, in the order they were read: the time (double, seconds of the wall clock, native order) and the number behind "@m" in the sender
 * (uint64, 0 without one). It is written when it fills, when nothing comes for a while, and at TERM. "listening\n" on stdout tells that it is. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 1 << 18, OUT_ROOM = 1 << 16, MOST_EVENTS = 64, IDLE_MS = 200 };
enum state { COMMAND, BODY, CHUNK };

struct peer {
    int fd;
    enum state state;
    int is_leaving;
    size_t held, left; /* octets in the buffer; octets of a chunk that are still to come */
    char octets[ROOM];
};
struct record {
    double at;
    uint64_t account;
};

static volatile sig_atomic_t is_over;
static const char *greeting_reply;
static FILE *ledger;
static char out[OUT_ROOM];
static size_t out_length;

static void stop(int number) {
    (void)number;
    is_over = 1;
}

static void say(const char *reply) {
    size_t length = strlen(reply);
    if (out_length + length <= OUT_ROOM) {
        memcpy(out + out_length, reply, length);
        out_length += length;
    }
}

static void note_mail(const char *line, const char *end, double now) {
    const char *at = memmem(line, (size_t)(end - line), "@m", 2);
    struct record record = {now, at ? strtoull(at + 2, NULL, 10) : 0};
    fwrite(&record, sizeof record, 1, ledger);
}

/* One command; `end` is its CR. */
static void command(struct peer *peer, char *line, char *end, double now) {
    switch (line[0] & ~0x20) {
    case 'E':
        say(greeting_reply);
        break;
    case 'M':
        note_mail(line, end, now);
        say("250 2.1.0 ok\r\n");
        break;
    case 'D':
        peer->state = BODY;
        say("354 go on\r\n");
        break;
    case 'B':
        peer->state = CHUNK;
        peer->left = strtoull(line + 5, NULL, 10);
        break;
    case 'Q':
        peer->is_leaving = 1;
        say("221 2.0.0 bye\r\n");
        break;
    default:
        say("250 2.1.5 ok\r\n");
    }
}

/* All that can be done with what was read; what remains moves to the front. */
static void digest(struct peer *peer, double now) {
    char *at = peer->octets, *end = peer->octets + peer->held;
    while (!peer->is_leaving) {
        if (peer->state == CHUNK) {
            size_t there = (size_t)(end - at), taken = there < peer->left ? there : peer->left;
            at += taken;
            peer->left -= taken;
            if (peer->left)
                break;
            peer->state = COMMAND;
            say("250 2.0.0 taken\r\n");
        } else if (peer->state == BODY) { /* `at` stands at a line end, so that a lone dot behind it is found too */
            char *dot = memmem(at, (size_t)(end - at), "\r\n.\r\n", 5);
            if (!dot) {
                at = end - at > 4 ? end - 4 : at;
                break;
            }
            at = dot + 5;
            peer->state = COMMAND;
            say("250 2.0.0 taken\r\n");
        } else {
            char *line_end = memmem(at, (size_t)(end - at), "\r\n", 2);
            if (!line_end)
                break;
            command(peer, at, line_end, now);
            at = peer->state == BODY ? line_end : line_end + 2;
        }
    }
    peer->held = (size_t)(end - at);
    memmove(peer->octets, at, peer->held);
}

static void hang_up(struct peer *peer) {
    close(peer->fd);
    free(peer);
}

static void serve(struct peer *peer) {
    ssize_t n = read(peer->fd, peer->octets + peer->held, ROOM - peer->held);
    if (n <= 0) {
        if (n == 0 || (errno != EAGAIN && errno != EINTR))
            hang_up(peer);
        return;
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    peer->held += (size_t)n;
    out_length = 0;
    digest(peer, (double)now.tv_sec + (double)now.tv_nsec / 1e9);
    int is_written = !out_length || write(peer->fd, out, out_length) == (ssize_t)out_length;
    if (peer->is_leaving || !is_written || peer->held == ROOM)
        hang_up(peer);
}

static void welcome(int listener, int poller) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), yes = 1;
    struct peer *peer = fd < 0 ? NULL : calloc(1, sizeof *peer);
    if (!peer)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    peer->fd = fd;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = peer};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    out_length = 0;
    say("220 sink ESMTP\r\n");
    if (write(fd, out, out_length) < 0)
        hang_up(peer);
}

static int listen_at(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1;
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (fd < 0 || bind(fd, (struct sockaddr *)&where, sizeof where) || listen(fd, 1024)) {
        perror("sink");
        exit(2);
    }
    return fd;
}

int main(int count, char **words) {
    if (count < 3 || !(ledger = fopen(words[2], "wb"))) {
        fprintf(stderr, "usage: sink PORT LEDGER [chunking]\n");
        return 2;
    }
    greeting_reply = count > 3 ? "250-sink\r\n250-PIPELINING\r\n250-SIZE 67108864\r\n250-CHUNKING\r\n250 8BITMIME\r\n"
                               : "250-sink\r\n250-PIPELINING\r\n250-SIZE 67108864\r\n250 8BITMIME\r\n";
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    int listener = listen_at(atoi(words[1])), poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event events[MOST_EVENTS], first = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &first);
    puts("listening");
    fflush(stdout);
    while (!is_over) {
        int n = epoll_wait(poller, events, MOST_EVENTS, IDLE_MS);
        if (n == 0)
            fflush(ledger);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                serve(events[i].data.ptr);
            else
                welcome(listener, poller);
        }
    }
    return fclose(ledger) ? 1 : 0;
}
