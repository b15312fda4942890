// One client of a day: `day.mjs HOST NAME COUNT`. A line of JSON for each exchange.
const [host, name, count] = process.argv.slice(2);
for (let number = 0; number < Number(count); number += 1) {
  const got = await fetch(`https://${host}/day/${name}/${number}`);
  const text = await got.text();
  console.log(JSON.stringify({ status: got.status, text, transformed: got.headers.get("x-transformed") }));
}
