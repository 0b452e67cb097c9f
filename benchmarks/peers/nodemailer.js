'use strict'
// node nodemailer.js PORT: reads {"from", "letters": [{"to", "subject", "text"}]} from the file PEER_LETTERS, sends them by a pool of twenty
// connections, and prints {"seconds", "cpu", "count"}.

const fs = require('fs')
const nodemailer = require('nodemailer')

async function main () {
  const { from, letters } = JSON.parse(fs.readFileSync(process.env.PEER_LETTERS, 'utf8'))
  const transport = nodemailer.createTransport({
    host: '127.0.0.1', port: Number(process.argv[2]), ignoreTLS: true, pool: true, maxConnections: 20, maxMessages: Infinity
  })
  const started = process.hrtime.bigint()
  const before = process.cpuUsage()
  let next = 0
  const drain = async () => {
    while (next < letters.length) await transport.sendMail({ from, ...letters[next++] })
  }
  await Promise.all(Array.from({ length: 40 }, drain))
  const spent = process.cpuUsage(before)
  transport.close()
  const seconds = Number(process.hrtime.bigint() - started) / 1e9
  console.log(JSON.stringify({ seconds, cpu: (spent.user + spent.system) / 1e6, count: letters.length }))
}

main().catch((error) => { console.error(error.message); process.exit(1) })
