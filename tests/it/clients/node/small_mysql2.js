// The same work by mysql2: HOST PORT USER PASSWORD DATABASE. Prints what came out, a line each.
'use strict';
const mysql = require('mysql2/promise');
const [host, port, user, password, database] = process.argv.slice(2);

async function main() {
  const connection = await mysql.createConnection({ host, port: Number(port), user, password, database, compress: Boolean(process.env.COMPRESSED) });
  await connection.query('DROP TABLE IF EXISTS node_orders');
  await connection.query('CREATE TABLE node_orders (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(100), price DECIMAL(10,2)) CHARACTER SET utf8mb4');
  for (let number = 0; number < 20; number++) {
    const [result] = await connection.query('INSERT INTO node_orders (name, price) VALUES (?, ?)', [`näme '${number}' 漢字`, number]);
    console.log('id', result.insertId, result.affectedRows);
  }
  const [rows] = await connection.query('SELECT * FROM node_orders ORDER BY id');
  console.log(JSON.stringify(rows));
  await connection.beginTransaction();
  await connection.query('DELETE FROM node_orders');
  await connection.rollback();
  const [count] = await connection.query('SELECT COUNT(*) AS n FROM node_orders');
  console.log(JSON.stringify(count));
  // The binary protocol.
  const [prepared] = await connection.execute('SELECT id, name, price FROM node_orders WHERE id < ? ORDER BY id', [5]);
  console.log(JSON.stringify(prepared));
  try {
    await connection.query('SELECT nonsense');
  } catch (error) {
    console.log('error', error.errno);
  }
  await connection.end();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
