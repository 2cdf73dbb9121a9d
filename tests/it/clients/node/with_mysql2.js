// mysql2: its `query`, which puts parameters into the text, or its `execute`, which prepares, as the variant says, and compressed if it says so;
// or as a framework of another language goes about it; streams; KILL QUERY.
'use strict'

const { main, config, variant, BEFORE_CANCEL_MS } = require('./program.js')
const { frameworks } = require('./frameworks.js')
const mysql = require('mysql2/promise')
const { version } = require('mysql2/package.json')

const plain = { flags: [], setup: [], way: variant.startsWith('execute') ? 'execute' : 'query' }
const { flags, setup, way, begin } = frameworks[variant]?.(config) ?? plain
const options = { ...config, rowsAsArray: true, supportBigNumbers: true, compress: variant.includes('compress'), flags }

async function connect () {
  const connection = await mysql.createConnection(options)
  for (const [way, text] of setup) await run(connection, way, text, [])
  return connection
}

// `once` is a statement that is prepared for one execution.
async function run (connection, way, sql, values) {
  if (way !== 'once') return connection[way](sql, values)
  try {
    return await connection.execute(sql, values)
  } finally {
    connection.unprepare(sql)
  }
}

class MySql2 {
  async open () {
    this.connection = await connect()
  }

  async close () {
    await this.connection.end()
  }

  async rows (text, ...values) {
    const sql = text.replace(/\$\d/g, '?')
    const [rows] = values.length > 0 ? await run(this.connection, way, sql, values) : await this.connection.query(text)
    return Array.isArray(rows) ? rows : []
  }

  async begin () {
    await (begin ? this.connection.query(begin) : this.connection.beginTransaction())
  }

  async commit () {
    await this.connection.commit()
  }

  async rollback () {
    await this.connection.rollback()
  }

  async many (items) {
    if (way === 'query') {
      await this.connection.query('INSERT INTO items VALUES ?', [items])
      return
    }
    if (way === 'once') {
      await run(this.connection, way, `INSERT INTO items VALUES ${items.map(() => '(?, ?)').join(', ')}`, items.flat())
      return
    }
    for (const item of items) await this.connection.execute('INSERT INTO items VALUES (?, ?)', item)
  }

  async * stream (sql) {
    yield * this.connection.connection[way === 'once' ? 'execute' : way](sql).stream()
    if (way === 'once') this.connection.unprepare(sql)
  }

  async cancelled (text) {
    const running = this.connection.query(text).then(() => false, (error) => {
      if (error.errno === 1317) return true
      throw error
    })
    const killing = new Promise((resolve) => setTimeout(resolve, BEFORE_CANCEL_MS)).then(async () => {
      // The driver's own: no framework has a way to stop a query.
      const other = await mysql.createConnection(options)
      await other.query(`KILL QUERY ${this.connection.threadId}`)
      await other.end()
    })
    // A request still under way would hit what comes next.
    return (await Promise.all([running, killing]))[0]
  }

  code (error) {
    return error.errno
  }

  // A value as parameter, as the server's text, from text, and from a literal.
  async ofAType (driver, kind, text) {
    const { base } = driver
    const bare = kind.split('(')[0]
    const isBinary = BINARY.includes(bare)
    await driver.rows(`REPLACE INTO kinds (id, \`${kind}\`) VALUES ($1, $2), ($3, ${isBinary ? 'UNHEX($4)' : '$4'})`,
      base, native(bare, text), base + 1, text)
    const quoted = isBinary ? `X'${text}'` : `'${text.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`
    await driver.rows(`REPLACE INTO kinds (id, \`${kind}\`) VALUES (${base + 2}, ${quoted})`)
    const [[value, server], [second], [third]] = await driver.rows(
      `SELECT \`${kind}\`, ${isBinary ? `HEX(\`${kind}\`)` : `CAST(\`${kind}\` AS CHAR)`} FROM kinds` +
        ' WHERE id BETWEEN $1 AND $2 ORDER BY id', base, base + 2)
    return [kind, shown(bare, value), server, shown(bare, second), shown(bare, third)].join(' | ')
  }

  async nullOfAType (driver, kind) {
    await driver.rows(`REPLACE INTO kinds (id, \`${kind}\`) VALUES ($1, $2)`, driver.base, null)
    const [[value]] = await driver.rows(`SELECT \`${kind}\` FROM kinds WHERE id = $1`, driver.base)
    return `${kind} ${shown(kind, value)}`
  }
}

const BINARY = ['BLOB', 'VARBINARY']

function native (kind, text) {
  switch (kind) {
    case 'TINYINT': case 'SMALLINT UNSIGNED': case 'INT': case 'FLOAT': case 'DOUBLE': case 'YEAR': return Number(text)
    case 'VARBINARY': case 'BLOB': return Buffer.from(text, 'hex')
    case 'DATETIME': case 'TIMESTAMP': return new Date(text.replace(' ', 'T') + 'Z')
    // A Date has a time.
    default: return text
  }
}

// A value as text, the same for all drivers.
function shown (kind, value) {
  if (value === null) return 'null'
  switch (kind) {
    case 'FLOAT': case 'DOUBLE': {
      const bits = Buffer.alloc(kind === 'FLOAT' ? 4 : 8)
      kind === 'FLOAT' ? bits.writeFloatBE(value) : bits.writeDoubleBE(value)
      return bits.toString('hex')
    }
    case 'VARBINARY': case 'BLOB': return value.toString('hex')
    case 'DATE': return value.toISOString().slice(0, 10)
    case 'TIME': return value.includes('.') ? value.replace(/\.?0+$/, '') : value
    case 'DATETIME': case 'TIMESTAMP': return value.toISOString().replace('T', ' ').replace('Z', '')
    case 'JSON': return JSON.stringify(typeof value === 'string' ? JSON.parse(value) : value)
    default: return String(value)
  }
}

main('mysql2', version, MySql2)
