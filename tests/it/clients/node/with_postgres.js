// postgres.js: named statements made from templates, a pool of one each; cursor(), cancel().
'use strict'

const { main, native, config, ROWS_AT_A_TIME, BEFORE_CANCEL_MS } = require('./program.js')
const postgres = require('postgres')
// By its path: the package does not export it.
const { version } = require(process.env.NODE_PATH + '/postgres/package.json')

class Postgres {
  async open () {
    const { user, ...others } = config
    this.sql = postgres({ ...others, username: user, max: 1 })
  }

  async close () {
    await this.sql.end()
  }

  async rows (text, ...values) {
    return await template(this.sql, text, values).values()
  }

  async begin () {
    this.pool = this.sql
    this.sql = await this.pool.reserve()
    await this.sql`BEGIN`
  }

  async commit () {
    await this.sql`COMMIT`
    this.release()
  }

  async rollback () {
    await this.sql`ROLLBACK`
    this.release()
  }

  release () {
    this.sql.release()
    this.sql = this.pool
  }

  async many (items) {
    // Sent without waiting for each other.
    await Promise.all(items.map(([id, v]) => this.sql`INSERT INTO items VALUES (${id}, ${v})`))
  }

  async * stream (text) {
    for await (const rows of template(this.sql, text, []).cursor(ROWS_AT_A_TIME)) {
      yield * rows.map(({ n, v }) => [n, v])
    }
  }

  async cancelled (text) {
    const query = template(this.sql, text, [])
    const timer = setTimeout(() => query.cancel(), BEFORE_CANCEL_MS)
    try {
      await query
      return false
    } catch (error) {
      if (error.code !== '57014') throw error
      return true
    } finally {
      clearTimeout(timer)
    }
  }

  native (kind, text, data) {
    // It takes a Date for a moment, which a timestamp without a zone is not.
    return kind === 'timestamp' ? text : native(kind, text, data)
  }
}

// As if the text stood in the source as a template with ${value} for $1 ...
function template (sql, text, values) {
  const strings = text.split(/\$\d/)
  return sql(Object.assign(strings, { raw: strings }), ...values)
}

main('postgres', version, Postgres)
