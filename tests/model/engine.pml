/* One account and one worker's journal: who may send, settle, rescue.  design 3.2, docs/queue-states.md, docs/design/002 and 003.

   States     st[i]     where recipient i stands: READY (stream entry or given back), LEASED, RETRY, or a final outcome
              lease[i]  the token it is leased under (A:lease; a settlement takes rows out of it: settling.lua)
              jtok      the journal {w:ID} of worker 0: VALID, REVOKED (revoke.lua), GONE (bury; before it is registered, too)
              jfirst    that of its attempt to register that had no answer (REGISTER_AGAIN, FRESH_ID): another id, that no lease names
              note[t]   L<n>: lease t is named in the journal          jin, jo   its intents and outcomes (the ticks' fields)
   Processes  W0        a worker: takes._take, journal.append, the wire, visits._visit, journal._trim, worker._leave.  Crashes anywhere.  A
                        process that spin does not schedule for a while is one that stands still: W0 is the zombie, too.
              Rescuer   takeover._rescue, two of them: they suspect W0 at ANY moment, rightly or not; crash and begin again at each step;
                        a journal that one has revoked the other goes on with at once: no wait is modelled, and none is needed
              Clean     a healthy worker with token CT, and takeover.sweep (at any moment: after a minute, or at once after a rescue)
              Canceller cancel.lua          Late      a second copy of a settlement, executed whenever (a repeat, a slow network)
              Rollback  Redis loses the last write to one of the two slots (ROLLBACK=1)
   One atomic block is one script or one append; no script touches the account's slot and the journal's.
   Checked    at each delivery: no more than doubts were resent (DUPCHECK); each settlement acts once; at the end: every recipient has exactly
              one outcome, none is `sent` that was not, none `cancelled` that was mailed; under HOLD nobody is mailed twice.
              After a rollback a recipient may be mailed once more, if what was lost spoke of it (covered[]).
   Left out   time.  That bytes go only while an append's answer is fresh, that a beat stands still for 10 s: here they may come as late as
              they like.  A W0 that sends late must still be harmless to the account's states.
              Blame and quarantine (010): they choose where a given-back row stands, not who may send it.
   Switches   -D<RULE>=0 leaves a rule out: runs.py names those, and `runs.py --trail NAME` prints the counter-example: read it from its end,
              the last delivery or settlement is the wrong one; the step before which another process came between is the cause.            */
#ifndef N
#define N 2                      /* recipients: one batch */
#endif
#ifndef K
#define K 1                      /* leases W0 may take: tokens 1..K */
#endif
#define NK (N*K)
#define CT 9                     /* Clean's token */
/* ---- what may happen ---- */
#ifndef RESCUERS
#define RESCUERS 2
#endif
#ifndef RCRASH
#define RCRASH 1                 /* crashes of rescuers */
#endif
#ifndef CLEANS
#define CLEANS 1
#endif
#ifndef NOCRASH
#define NOCRASH 0
#endif
#ifndef LATE
#define LATE 1
#endif
#ifndef HOLD
#define HOLD 0
#endif
#ifndef MAXDOUBT
#define MAXDOUBT 1
#endif
#ifndef CANCEL
#define CANCEL 0
#endif
#ifndef ROLLBACK
#define ROLLBACK 0
#endif
#ifndef DEFERS
#define DEFERS 1
#endif
#ifndef LOSTREPLY                /* of the relay */
#define LOSTREPLY 1
#endif
#ifndef LOSTANSWER               /* of a visit: it was executed, and is repeated */
#define LOSTANSWER 0
#endif
#ifndef REGISTER_AGAIN           /* W0's first registration had no answer.  1: it was executed, then W0 registers again, before it takes anything */
#define REGISTER_AGAIN 0         /* 2: it is executed at any time, a copy that a slow network kept */
#endif
#ifndef LAPSES                   /* permits that lapse after their intent: withdrawn, picked again under the same lease */
#define LAPSES 0
#endif
/* ---- rules ---- */
#ifndef FENCE_APPEND             /* append.lua: refused unless the worker's token stands */
#define FENCE_APPEND 1
#endif
#ifndef NOCREATE                 /* append.lua: an absent journal refuses */
#define NOCREATE 1
#endif
#ifndef INTENT                   /* no bytes before an acknowledged intent */
#define INTENT 1
#endif
#ifndef NOTE_WITH_INTENT         /* a lease's note stands with its first intents at the latest.  0: only after them */
#define NOTE_WITH_INTENT 1
#endif
#ifndef TAKE_IS_ONE              /* 002: the script that writes the lease removes the rows from where they stood.  0: two steps */
#define TAKE_IS_ONE 1
#endif
#ifndef LEASE_TOKEN              /* 003: a settlement acts only on rows LEASED under its token.  0: on all that are not final */
#define LEASE_TOKEN 1
#endif
#ifndef REVOKE_FIRST             /* takeover: revoke, then read */
#define REVOKE_FIRST 1
#endif
#ifndef DOUBT_WITH_FREE          /* takeover: outcomes, doubts and the rest of a lease in one script.  0: free first, doubts after */
#define DOUBT_WITH_FREE 1
#endif
#ifndef FREE_BEFORE_BURY         /* takeover: the journal goes when every lease is freed */
#define FREE_BEFORE_BURY 1
#endif
#ifndef LAST_ENTRY               /* takeover.settlements_of: the last entry of a row counts.  0: a withdrawal outweighs a later intent */
#define LAST_ENTRY 1
#endif
#ifndef SETTLE_BEFORE_TRIM
#define SETTLE_BEFORE_TRIM 1
#endif
#ifndef TRIM_EXACT               /* only what is settled goes.  0: "trimmed up to there" */
#define TRIM_EXACT 1
#endif
#ifndef FRESH_ID                 /* worker._ask_to_register: each attempt has an id and a token of its own.  0: all have the same */
#define FRESH_ID 1
#endif
#ifndef CARRY_FIRST              /* 014: an old tick goes when what was written anew of it stands; a row's last entry is as before.  0: at once */
#define CARRY_FIRST 1
#endif
#ifndef SWEEP                    /* a lease whose worker has no journal is given back (takeover.sweep) */
#define SWEEP 1
#endif
#ifndef LEASES_FIRST             /* takeover.sweep: the leases are read, then whether their worker has a journal.  0: the other way round */
#define LEASES_FIRST 1
#endif
#ifndef WITHDRAW                 /* 1: what is not written after its intent is withdrawn.  2: forgotten */
#define WITHDRAW 1
#endif
#ifndef CANCEL_DOUBT             /* settling.lua doubt: after cancel a doubt is unknown, neither resent nor cancelled */
#define CANCEL_DOUBT 1
#endif
#ifndef STICKY                   /* settling.lua drop: once in doubt, it ends as unknown instead of cancelled */
#define STICKY 1
#endif
#ifndef RETAIN                   /* what is settled stays in the journal for longer than Redis may lose (settings.retain) */
#define RETAIN 1
#endif
#ifndef RESYNC                   /* journal.recover, visits.settle_again: after a reconnect everything live is written and settled again */
#define RESYNC 1
#endif
#ifndef RETAIN_UNACTED           /* visits._accepted: also a settlement that found nothing to do, because its first answer was lost */
#define RETAIN_UNACTED 1
#endif
/* outcomes */
#define NONE 0
#define SENT 1
#define DEFER 2
#define DOUBT 3
#define WDR 4
/* recipient states */
#define READY 0
#define LEASED 1
#define RETRY 2
#define FSENT 3
#define FUNK 4
#define FCAN 5
/* journal token */
#define VALID 0
#define REVOKED 1
#define GONE 2

#define FOR(v,n) v=0; do :: v<n ->
#define END(v) v++ :: else -> break od; v=0

/* the account's slot */
byte st[N]; byte lease[N]; bit cancelled; byte nfinal;
/* the journal's slot, index (token-1)*N+i */
#if REGISTER_AGAIN && FRESH_ID
byte jtok = GONE; byte jfirst = (REGISTER_AGAIN==1 -> VALID : GONE);
#else
byte jtok = VALID;
#endif
bit note[K]; bit jin[NK]; byte jo[NK]; bit jw[NK];
/* ghosts */
byte delivered[N]; byte resent[N]; bit effective[NK]; byte defers, lost, rcrash, crashed, lostanswers, lapses;
bit registered;
#if ROLLBACK
byte zst[N]; byte zlease[N]; byte znf; bit znote[K]; bit zjin[NK]; byte zjo[NK]; bit rolled; bit broken; bit havea; bit havej; bit covered[N];
inline saveA() { d_step { if :: !rolled -> havea=1; znf=nfinal; FOR(x,N) zst[x]=st[x]; zlease[x]=lease[x]; END(x) :: else fi } }
inline saveJ() { d_step { if :: !rolled -> havej=1; FOR(x,K) znote[x]=note[x]; END(x); FOR(x,NK) zjin[x]=jin[x]; zjo[x]=jo[x]; END(x) :: else fi } }
inline noroll() { havea=0 }
#define COVERED(i) covered[i]
#else
inline saveA() { skip }
inline saveJ() { skip }
inline noroll() { skip }
#define COVERED(i) 0
#endif

#define JW (jtok==VALID || !FENCE_APPEND && jtok!=GONE || !NOCREATE && jtok==GONE)   /* may W0 write its journal */

inline fin(i,s) { st[i]=((s==FCAN && STICKY && resent[i]) -> FUNK : s); lease[i]=0; nfinal++ }

/* one row of a settlement of lease t (settling.lua settle) */
inline apply(t,i,o) {
  if
  :: o!=NONE && (LEASE_TOKEN -> (st[i]==LEASED && lease[i]==t) : st[i]<FSENT) ->
     if :: !ROLLBACK && t<=K -> assert(!effective[(t-1)*N+i]); effective[(t-1)*N+i]=1 :: else fi;
     if
     :: o==SENT -> fin(i,FSENT)
     :: o==DEFER -> if :: cancelled -> fin(i,FCAN) :: else -> st[i]=RETRY; lease[i]=0 fi
     :: o==WDR -> if :: cancelled -> fin(i,FCAN) :: else -> st[i]=READY; lease[i]=0 fi
     :: o==DOUBT ->
        if :: HOLD || resent[i]>=MAXDOUBT || (cancelled && CANCEL_DOUBT) -> fin(i,FUNK)
           :: else -> if :: cancelled -> fin(i,FCAN) :: else -> resent[i]++; st[i]=READY; lease[i]=0 fi fi
     fi
  :: else
  fi
}
inline give_back(t,i) {
  if :: st[i]==LEASED && lease[i]==t -> lease[i]=0; if :: cancelled -> fin(i,FCAN) :: else -> st[i]=READY fi
     :: else fi
}
inline deliver(i) { delivered[i]++; assert(delivered[i] <= 1+resent[i]+COVERED(i)) }
proctype Late(byte t; byte o0; byte o1) {
  byte x;
  atomic { saveA(); apply(t,0,o0);
#if N>1
  apply(t,1,o1);
#endif
  }
}
inline settle(t) {
  atomic { acted=0;
    FOR(i,N) if :: st[i]==LEASED && lease[i]==t -> acted=1 :: else fi; END(i);
    if :: acted -> saveA() :: else fi;                          /* what changes nothing is no write that could be lost */
    FOR(i,N) if :: ackd[i] -> apply(t,i,mem[i]) :: else fi; END(i) }
}
/* the visit, until it is answered; `kept`: the settlement stands in visits._retained */
inline settle_until_answered(t) {
  do :: resync(t); settle(t);
        if :: lostanswers<LOSTANSWER -> lostanswers++
           :: break fi
  od;
  atomic { kept=(acted || RETAIN_UNACTED); FOR(i,N) setl[i]=ackd[i]; END(i) }
}
inline trim(t) {
  atomic { if :: JW ->
     if :: RETAIN -> saveA() :: else fi; saveJ();
     FOR(i,N) if :: (ackd[i] && setl[i]) || (!TRIM_EXACT && mine[i]) -> jin[(t-1)*N+i]=0; jo[(t-1)*N+i]=NONE; jw[(t-1)*N+i]=0
                 :: else fi; END(i)
     :: else fi }
}
inline maycrash() { if :: crashed==0 && !NOCRASH -> crashed=1; goto dead :: skip fi }
#if ROLLBACK && RESYNC
#define ISBROKEN (broken && kept)
inline resync(t) { atomic { if :: broken -> broken=0;
   if :: !JW -> goto dead :: else fi;
   note[t-1]=1; FOR(i,N) if :: mine[i] && open[i] -> jin[(t-1)*N+i]=1; jo[(t-1)*N+i]=mem[i] :: else fi; END(i)
   :: else fi } }
#else
#define ISBROKEN false
inline resync(t) { skip }
#endif

proctype W0() {
  byte i=0, t=0, x=0, k=0; bit mine[N]; byte mem[N]; bit ackd[N]; bit setl[N]; bit open[N]; bit latecopy=0; bit acted=0; bit kept=1;
#if REGISTER_AGAIN==1 || REGISTER_AGAIN && FRESH_ID
  atomic { registered=1; if :: jtok==REVOKED -> goto dead :: else -> jtok=VALID fi };
  maycrash();
#endif
again:
  if :: t==K -> goto leave :: else -> t++ fi;
  maycrash();
#if TAKE_IS_ONE
  atomic { saveA(); k=0;
    FOR(i,N) mem[i]=NONE; ackd[i]=0; setl[i]=0; open[i]=0; mine[i]=0;
             if :: st[i]==READY && !cancelled -> st[i]=LEASED; lease[i]=t; mine[i]=1; k++ :: else fi; END(i) };
#else
  atomic { k=0; FOR(i,N) mem[i]=NONE; ackd[i]=0; setl[i]=0; open[i]=0; mine[i]=(st[i]==READY && !cancelled); k=k+mine[i]; END(i) };
  atomic { FOR(i,N) if :: mine[i] && st[i]<FSENT -> st[i]=LEASED; lease[i]=t :: else fi; END(i) };
#endif
  maycrash();
  if :: k==0 -> goto endlease :: else fi;
  /* one tick: note and intents of all of them, one fenced append */
  if :: INTENT -> atomic { if :: JW -> saveJ(); if :: NOTE_WITH_INTENT -> note[t-1]=1 :: else fi;
                                  FOR(i,N) if :: mine[i] -> jin[(t-1)*N+i]=1; open[i]=1 :: else fi; END(i)
                              :: else -> goto dead fi }
     :: else -> note[t-1]=1 fi;
  k=0;
  do
  :: k<N ->
     if :: mine[k] ->
        maycrash();
        if :: lapses<LAPSES -> lapses++;                       /* withdrawn, journalled; picked again: a later intent */
              atomic { if :: JW -> jo[(t-1)*N+k]=WDR; jw[(t-1)*N+k]=1 :: else -> goto dead fi };
              maycrash();
              atomic { if :: JW -> jo[(t-1)*N+k]=NONE :: else -> goto dead fi };
              maycrash()
           :: skip fi;
        atomic {                                               /* the wire */
        if
        :: WITHDRAW==1 && cancelled -> mem[k]=WDR
        :: WITHDRAW==2 && cancelled -> mem[k]=NONE
        :: deliver(k); mem[k]=SENT
        :: lost<LOSTREPLY -> lost++; deliver(k); mem[k]=DOUBT
        :: lost<LOSTREPLY -> lost++; mem[k]=DOUBT
        :: defers<DEFERS -> defers++; mem[k]=DEFER
        fi };
        maycrash();
        resync(t);
        atomic { if :: JW -> saveJ(); jo[(t-1)*N+k]=mem[k]; ackd[k]=1 :: else -> goto dead fi };
        maycrash();
#if !CARRY_FIRST
        atomic { if :: JW -> jin[(t-1)*N+k]=0; jo[(t-1)*N+k]=NONE :: else -> goto dead fi };
        maycrash();
        atomic { if :: JW -> jo[(t-1)*N+k]=mem[k] :: else -> goto dead fi };
#endif
        if :: skip -> /* a part is settled now */
              if :: !SETTLE_BEFORE_TRIM -> atomic { FOR(i,N) setl[i]=ackd[i]; END(i) }; trim(t); maycrash() :: else fi;
              do :: settle_until_answered(t);
                    maycrash();
                    atomic { if :: ISBROKEN :: else -> if :: SETTLE_BEFORE_TRIM -> trim(t) :: else fi; break fi }
              od;
              atomic { FOR(i,N) if :: setl[i] -> open[i]=0; ackd[i]=0 :: else fi; END(i) }
           :: skip fi
        :: else fi; k++
  :: else -> break
  od;
  if :: !NOTE_WITH_INTENT -> atomic { if :: JW -> note[t-1]=1 :: else -> goto dead fi } :: else fi;
  if :: LATE && !latecopy -> latecopy=1;
#if N>1
        run Late(t, (ackd[0]->mem[0]:NONE), (ackd[1]->mem[1]:NONE))
#else
        run Late(t, (ackd[0]->mem[0]:NONE), NONE)
#endif
     :: skip fi;
  do :: settle_until_answered(t);
        maycrash();
        atomic { if :: ISBROKEN :: else -> trim(t); break fi }
  od;
endlease:
  atomic { if :: JW -> saveJ(); note[t-1]=0 :: else -> goto dead fi };
  goto again;
leave:                                                          /* worker._leave: the last append is answered, nothing is open */
  if :: JW :: else -> goto dead fi;
  if :: NOCRASH -> skip :: else -> jtok=GONE fi;
dead: skip;
  d_step { t=0; k=0; acted=0; kept=0; FOR(i,N) mine[i]=0; mem[i]=0; ackd[i]=0; setl[i]=0; open[i]=0; END(i); latecopy=0 }
}

inline revoke() { atomic { if :: jtok==VALID -> jtok=REVOKED :: jtok==REVOKED :: jtok==GONE -> goto done fi } }
inline bury() { atomic { jtok=GONE; FOR(t,K) note[t]=0; END(t); FOR(t,NK) jin[t]=0; jo[t]=NONE; jw[t]=0; END(t) } }
#define DIED(t,i) (so[(t-1)*N+i]==NONE && sin[(t-1)*N+i] && (LAST_ENTRY || !sw[(t-1)*N+i]))

proctype Rescuer() {
  byte t=0, i=0, x=0; bit sn[K]; bit sin[NK]; byte so[NK]; bit sw[NK];
restart:
#if REGISTER_AGAIN && FRESH_ID
  if :: jfirst==VALID -> jfirst=REVOKED; jfirst=GONE :: else fi; /* nothing stands in it; the sweep that follows is Clean's, at any moment */
#endif
  if :: REVOKE_FIRST -> revoke() :: else fi;
  if :: rcrash<RCRASH -> rcrash++; goto restart :: skip fi;
  d_step { FOR(t,K) sn[t]=note[t]; END(t); FOR(t,NK) sin[t]=jin[t]; so[t]=jo[t]; if :: !LAST_ENTRY -> sw[t]=jw[t] :: else fi; END(t) };
  if :: !REVOKE_FIRST -> revoke() :: else fi;
  if :: !FREE_BEFORE_BURY -> bury() :: else fi;
  t=1;
  do
  :: t<=K ->
     if :: rcrash<RCRASH -> rcrash++; t=0; goto restart :: skip fi;
     if :: sn[t-1] ->
        if :: DOUBT_WITH_FREE ->
              atomic { saveA(); FOR(i,N)
                 if :: so[(t-1)*N+i]!=NONE -> apply(t,i,so[(t-1)*N+i])
                    :: DIED(t,i) -> apply(t,i,DOUBT)
                    :: else -> give_back(t,i) fi; END(i) }
           :: else ->
              atomic { saveA(); FOR(i,N) if :: so[(t-1)*N+i]!=NONE -> apply(t,i,so[(t-1)*N+i]) :: else -> give_back(t,i) fi; END(i) };
              atomic { saveA(); FOR(i,N) if :: DIED(t,i) -> apply(t,i,DOUBT) :: else fi; END(i) }
        fi
     :: else fi; t++
  :: else -> break
  od;
  if :: rcrash<RCRASH -> rcrash++; t=0; goto restart :: skip fi;
  if :: FREE_BEFORE_BURY -> bury() :: else fi;
done:
  if :: REGISTER_AGAIN && (!registered || jtok==VALID) -> registered; t=0; goto restart /* who watches, watches on */
     :: else fi;
  d_step { FOR(t,K) sn[t]=0; END(t); FOR(t,NK) sin[t]=0; so[t]=0; sw[t]=0; END(t); i=0 }
}

#define HAS_WORK(i) (st[i]==READY || st[i]==RETRY || (SWEEP && jtok==GONE && st[i]==LEASED))
#if N>1
#define ANY_WORK (HAS_WORK(0) || HAS_WORK(1))
#else
#define ANY_WORK HAS_WORK(0)
#endif
proctype Clean() {
  byte i=0, x=0; bit got[N]; byte orphan[N]; byte o;
again:
  atomic { (nfinal>=N || ANY_WORK); if :: nfinal>=N -> noroll(); goto stop :: else fi };
  if
  :: SWEEP && (LEASES_FIRST || jtok==GONE) ->                   /* need.lua, then beat, then a visit for each lease */
     d_step { FOR(i,N) orphan[i]=((st[i]==LEASED && lease[i]!=CT) -> lease[i] : 0); END(i) };
     if
     :: jtok==GONE || !LEASES_FIRST -> atomic { noroll(); FOR(i,N) if :: orphan[i] -> give_back(orphan[i],i) :: else fi; orphan[i]=0; END(i) }
     :: else -> d_step { FOR(i,N) orphan[i]=0; END(i) }
     fi
  :: skip
  fi;
  atomic { noroll(); FOR(i,N) if :: (st[i]==READY || st[i]==RETRY) && !cancelled -> st[i]=LEASED; lease[i]=CT; got[i]=1
                                 :: else -> got[i]=0 fi; END(i) };
  do :: i<N ->
     if :: got[i] ->
        atomic {
        if
        :: cancelled -> o=WDR
        :: deliver(i); o=SENT
        :: lost<LOSTREPLY -> lost++; deliver(i); o=DOUBT
        :: defers<DEFERS -> defers++; o=DEFER
        fi };
        atomic { noroll(); apply(CT,i,o) }; got[i]=0
     :: else fi; i++
     :: else -> break
  od;
  atomic { i=0; o=0 };
  goto again;
stop: skip
}
proctype Registration() {
#if REGISTER_AGAIN && FRESH_ID
  jfirst=VALID
#else
  atomic { registered=1; if :: jtok==GONE -> jtok=VALID :: else fi }
#endif
}
proctype Canceller() { byte i=0, x=0;
  atomic { noroll(); cancelled=1; FOR(i,N) if :: st[i]==READY || st[i]==RETRY -> fin(i,FCAN) :: else fi; END(i) }
}
#if ROLLBACK
proctype Rollback() { byte x=0;
  if
  :: atomic { havea && !rolled -> rolled=1; broken=1; nfinal=znf;
       FOR(x,N) covered[x]=(st[x]!=zst[x] || lease[x]!=zlease[x]); st[x]=zst[x]; lease[x]=zlease[x]; END(x) }
  :: atomic { havej && !rolled && jtok==VALID -> rolled=1; broken=1; FOR(x,K) if :: note[x]!=znote[x] -> covered[0]=1;
#if N>1
              covered[1]=1
#endif
              :: else fi; note[x]=znote[x]; END(x);
       FOR(x,NK) if :: jin[x]!=zjin[x] || jo[x]!=zjo[x] -> covered[x%N]=1 :: else fi; jin[x]=zjin[x]; jo[x]=zjo[x]; END(x) }
  :: skip
  fi }
#endif
init {
  byte i;
  atomic { run W0(); if :: RESCUERS>0 -> run Rescuer() :: else fi; if :: RESCUERS>1 -> run Rescuer() :: else fi;
    if :: CLEANS>0 -> run Clean() :: else fi; if :: CLEANS>1 -> run Clean() :: else fi;
    if :: REGISTER_AGAIN==2 -> run Registration() :: else fi;
    if :: CANCEL -> run Canceller() :: else fi;
#if ROLLBACK
    run Rollback();
#endif
  };
  (_nr_pr==1);
  do :: i<N -> assert(st[i]>=FSENT);                                     /* nobody lost */
        assert(st[i]!=FSENT || delivered[i]>0);                          /* no `sent` that was not */
        assert(st[i]!=FCAN  || delivered[i]==0 || COVERED(i));           /* none cancelled that was mailed */
        if :: HOLD -> assert(delivered[i]<=1+COVERED(i)) :: else fi; i++
     :: else -> break od;
  if :: !ROLLBACK -> assert(nfinal==N) :: else fi
}
