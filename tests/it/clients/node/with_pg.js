// node-postgres: one Client each, unnamed statements; pg-cursor for many rows; its cancel by a second Client.
'use strict'

const { main, native, config, ROWS_AT_A_TIME, BEFORE_CANCEL_MS } = require('./program.js')
const pg = require('pg')
const Cursor = require('pg-cursor')
const { version } = require('pg/package.json')

class Pg {
  async open () {
    this.client = new pg.Client(config)
    // What goes wrong between queries fails the next one.
    this.client.on('error', () => {})
    await this.client.connect()
  }

  async close () {
    await this.client.end()
  }

  async rows (text, ...values) {
    const query = { text, rowMode: 'array' }
    if (values.length > 0) query.values = values
    return (await this.client.query(query)).rows
  }

  async begin () {
    await this.client.query('BEGIN')
  }

  async commit () {
    await this.client.query('COMMIT')
  }

  async rollback () {
    await this.client.query('ROLLBACK')
  }

  async many (items) {
    // By name: parsed once. One after another, as the driver would send them anyway.
    for (const values of items) {
      await this.client.query({ name: 'insert', text: 'INSERT INTO items VALUES ($1, $2)', values })
    }
  }

  async * stream (sql) {
    const cursor = this.client.query(new Cursor(sql, [], { rowMode: 'array' }))
    for (;;) {
      const rows = await cursor.read(ROWS_AT_A_TIME)
      if (rows.length === 0) break
      yield * rows
    }
    await cursor.close()
  }

  async cancelled (text) {
    const query = new pg.Query(text)
    const ended = new Promise((resolve) => {
      query.on('end', () => resolve(false))
      query.on('error', (error) => resolve(error.code === '57014'))
    })
    this.client.query(query)
    const timer = setTimeout(() => {
      const canceller = new pg.Client(config)
      // It is closed without an answer, as the protocol has it.
      canceller.on('error', () => {})
      canceller.connection.on('error', () => {})
      canceller.cancel(this.client, query)
    }, BEFORE_CANCEL_MS)
    const told = await ended
    clearTimeout(timer)
    return told
  }

  native (kind, text, data) {
    return native(kind, text, data)
  }
}

// An interval comes as an object.
pg.types.setTypeParser(pg.types.builtins.INTERVAL, (text) => text)

main('pg', version, Pg)
