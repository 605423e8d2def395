// As count.py, by proper-lockfile: proper_lockfile.mjs MODULES WAY TURNS.
import { createRequire } from "node:module";
import { readFileSync, renameSync, writeFileSync } from "node:fs";

const [modules, way, turns] = process.argv.slice(2);
const lockfile = createRequire(`${modules}/`)("proper-lockfile");
for (let turn = 0; turn < Number(turns); turn++) {
  const unlock = await lockfile.lock("count.json", { retries: { retries: 10000, minTimeout: 5, maxTimeout: 40 } });
  const text = JSON.stringify({ count: JSON.parse(readFileSync("count.json", "utf8")).count + 1 });
  if (way.endsWith("replaced")) {
    writeFileSync(`count.json.${process.pid}`, text);
    renameSync(`count.json.${process.pid}`, "count.json");
  } else {
    writeFileSync("count.json", text);
  }
  await unlock();
}
