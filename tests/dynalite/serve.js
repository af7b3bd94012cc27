// One dynalite on a free port, which it prints; it ends with its standard input, so that none outlives the tests, however they end.
const server = require('dynalite')({ createTableMs: 0, deleteTableMs: 0 })
server.keepAliveTimeout = 0 // a connection closed for idleness while a request is on its way would look like an outage
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
process.stdin.on('end', () => process.exit()).resume()
process.on('uncaughtException', (error) => {
  if (error.code === 'ECONNRESET') return // dynalite would end with any client that is killed within a request
  console.error(error)
  process.exit(1)
})
