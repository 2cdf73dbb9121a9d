// The program that tests/it/drivers.rs describes, for Node's drivers. A driver's file gives a class to `main`:
//
//   node with_NAME.js HOST PORT USER PASSWORD DATABASE FOLDER FIRST CLIENTS VARIANT
//
// FOLDER has the database's types and statements: types.tsv, statements.tsv.
//
//   open(), close(), begin(), commit(), rollback()
//   rows(sql, ...parameters)   arrays of values; parameters are $1 ...
//   many(items)                inserts [id, v] into `items`, in the driver's way for many
//   stream(sql)                async iterator over rows, ROWS_AT_A_TIME at a time
//   cancelled(sql)             runs a statement that takes long and cancels it; false if it ran to its end
//   native(kind, text, data)   a value as an application gives it to the driver
//
// Prints what each client saw, a line each: `line CLIENT TEXT`, at its end `digest CLIENT SHA-256`, or `failed CLIENT WHY`.
'use strict'

// Dates without a zone are local ones in JavaScript.
process.env.TZ = 'UTC'
const { createHash } = require('node:crypto')
const { readFileSync } = require('node:fs')

const [host, port, user, password, database, folder, first, clients, variant] = process.argv.slice(2)
const config = { host, port: Number(port), user, password, database }
const table = (name) => readFileSync(`${folder}/${name}.tsv`, 'utf8').trimEnd().split('\n').map((line) => line.split('\t'))
// What the database is asked, by name; parameters are $1 ...
const SQL = Object.fromEntries(table('statements'))
const BATCH = 1000
const ROWS_AT_A_TIME = 500
// Attempts to cancel: the protocol does not say when a query has begun, so a request may come before it does.
const CANCELS = 5
const BEFORE_CANCEL_MS = 150

const sha256 = (data) => createHash('sha256').update(data).digest('hex')

async function * program (driver) {
  const kinds = table('types')
  for (const [kind, text, data] of kinds) yield await (driver.ofAType ?? ofAType)(driver, kind, text, data)
  for (const kind of new Set(kinds.map(([kind]) => kind))) {
    yield await (driver.nullOfAType ?? nullOfAType)(driver, kind)
  }
  let total = 0
  for (let n = 0; n < 20; n++) {
    total += (await driver.rows(SQL.add, n, 2 * n))[0][0]
  }
  yield `prepared ${total}`

  const { base } = driver
  await driver.rows(SQL.clear, base, base + 99_999)
  await driver.begin()
  await driver.many(Array.from({ length: BATCH }, (_, n) => [base + n, `item ${n}`]))
  await driver.commit()
  const items = async () => (await driver.rows(SQL.items, base, base + 99_999))[0]
  const shown = async () => (await items()).join(' ')
  const insert = (n) => driver.rows(SQL.insert, base + n, `item ${n}`)
  const error = (work) => work.then(() => 'no error', (error) => `error ${driver.code ? driver.code(error) : error.code}`)

  yield `batch ${await shown()}`
  await driver.begin()
  await insert(BATCH)
  yield `inside ${await shown()}`
  await driver.rollback()
  yield `rolled back ${await shown()}`

  await driver.begin()
  await insert(BATCH + 1)
  yield await error(driver.rows(SQL.fails, 0))
  yield await error(driver.rows('SELECT 1'))
  await driver.rollback()
  yield `after an error ${await shown()}`
  await driver.begin()
  await insert(BATCH + 1)
  await driver.rows('SAVEPOINT s')
  yield await error(insert(0))
  await driver.rows('ROLLBACK TO SAVEPOINT s')
  await insert(BATCH + 2)
  await driver.commit()
  yield `after a savepoint ${await shown()}`
  yield await error(driver.rows('SELEC 1'))
  yield await error(driver.rows(SQL.missing, 1))
  yield await error(insert(0))

  const digest = createHash('sha256')
  let count = 0
  await driver.begin()
  for await (const [n, v] of driver.stream('SELECT n, v FROM numbers ORDER BY n')) {
    digest.update(`${n} ${v}\n`)
    count++
  }
  await driver.commit()
  yield `rows ${count} ${digest.digest('hex')}`

  yield await cancelled(driver)
  yield `goes on ${(await driver.rows(SQL.one, 42))[0][0]}`

  const long = Array.from({ length: 1_000_000 }, (_, n) => String.fromCharCode(97 + n % 26)).join('')
  let [[back, md5]] = await driver.rows(SQL.text, long)
  yield `text ${back.length} ${md5} ${sha256(back)}`
  const bytes = Buffer.from(Array.from({ length: 1_000_000 }, (_, n) => n * 7 % 256));
  [[back, md5]] = await driver.rows(SQL.bytes, bytes)
  yield `bytea ${back.length} ${md5} ${sha256(back)}`

  await driver.close()
  await driver.open()
  yield `again ${(await driver.rows(SQL.one, 42))[0][0]} ${(await items())[0]}`
  await driver.close()
}

// A value as parameter, as the server's text, from text, and from a literal.
async function ofAType (driver, kind, text, data) {
  const shown = { timestamptz: "v AT TIME ZONE 'UTC'", json: 'CAST(v AS jsonb)' }[kind] ?? 'v'
  const [[value, server]] = await driver.rows(
    `SELECT v, CAST(${shown} AS text) FROM (SELECT CAST($1 AS ${kind}) AS v) AS x`, driver.native(kind, text, data))
  const [[fromText]] = await driver.rows(`SELECT CAST(CAST($1 AS text) AS ${kind})`, text)
  const [[literal]] = await driver.rows(`SELECT CAST('${text.replaceAll("'", "''")}' AS ${kind})`)
  return [kind, canonical(kind, value), server, canonical(kind, fromText), canonical(kind, literal)].join(' | ')
}

async function nullOfAType (driver, kind) {
  const [[value]] = await driver.rows(`SELECT CAST($1 AS ${kind})`, null)
  return `${kind} ${canonical(kind, value)}`
}

// A cancel counts if the driver says so and the statement has done nothing.
async function cancelled (driver) {
  const key = driver.base + 50_000
  for (let attempt = 0; attempt < CANCELS; attempt++) {
    const told = await driver.cancelled(SQL.sleep.replace('KEY', key))
    const done = await driver.rows(SQL.slept, key)
    await driver.rows(SQL.forget, key)
    if (told && done.length === 0) return 'cancelled'
  }
  return 'not cancelled'
}

function native (kind, text, data) {
  switch (kind) {
    case 'bool': return text === 'true'
    case 'int2': case 'int4': case 'float4': case 'float8': return Number(text)
    case 'int8': return BigInt(text)
    case 'bytea': return Buffer.from(text.slice(2), 'hex')
    case 'date': return new Date(text)
    case 'timestamp': return new Date(text.replace(' ', 'T') + 'Z')
    case 'timestamptz': return new Date(text.replace(' ', 'T') + ':00')
    case 'json': case 'jsonb': return JSON.parse(text)
    case 'int4[]': case 'text[]': return JSON.parse(data)
    default: return text
  }
}

// A value as text: PostgreSQL's own in most cases, bits for floats, JSON for arrays.
function canonical (kind, value) {
  if (value === null) return 'null'
  switch (kind) {
    case 'float4': case 'float8': {
      if (Number.isNaN(value)) return 'NaN'
      const bits = Buffer.alloc(kind === 'float4' ? 4 : 8)
      kind === 'float4' ? bits.writeFloatBE(value) : bits.writeDoubleBE(value)
      return bits.toString('hex')
    }
    case 'bytea': return '\\x' + value.toString('hex')
    case 'date': return value.toISOString().slice(0, 10)
    case 'timestamp': return value.toISOString().replace('T', ' ').replace('Z', '')
    case 'timestamptz': return value.toISOString().replace('T', ' ').replace('Z', '+00')
    case 'json': case 'jsonb': case 'int4[]': case 'text[]': return JSON.stringify(value)
    default: return String(value)
  }
}

async function client (Driver, number) {
  try {
    const driver = new Driver()
    driver.base = number * 100_000
    await driver.open()
    const digest = createHash('sha256')
    for await (const line of program(driver)) {
      digest.update(line + '\n')
      // At once, for those who wonder what takes so long.
      console.log(`line ${number} ${line}`)
    }
    console.log(`digest ${number} ${digest.digest('hex')}`)
  } catch (error) {
    console.log(`failed ${number} ${JSON.stringify(error?.stack ?? error)}`)
  }
}

async function main (name, version, Driver) {
  console.log(`version ${name} ${version}`)
  await Promise.all(Array.from({ length: Number(clients) }, (_, n) => client(Driver, Number(first) + n)))
}

module.exports = { main, native, config, variant, ROWS_AT_A_TIME, BEFORE_CANCEL_MS }
