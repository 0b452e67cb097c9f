'use strict'
// Everybody may send, and everything goes out to the sink, through Haraka's outbound queue.

exports.register = function () {
  this.sink = parseInt(this.config.get('sink_port'), 10)
}

exports.hook_connect = function (next, connection) {
  connection.relaying = true
  next()
}

exports.hook_rcpt = function (next) {
  next(OK)
}

exports.hook_get_mx = function (next) {
  next(OK, { priority: 0, exchange: '127.0.0.1', port: this.sink })
}
