// fs.promises.writeFile: Node opens, writes and closes the file from its pool of four threads.
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";

const [path, stop] = process.argv.slice(2);
const filler = "the plan of record says what is next, who does it and what it waits for";
let saves = 0;
let refused = 0;
while (!existsSync(stop)) {
  const by = `node ${saves + refused}`;
  const texts = Array.from({ length: 100 + ((saves * 61) % 300) }, (_, n) => `${n} ${filler}`);
  const sum = createHash("md5").update(texts.join("")).digest("hex");
  const items = texts.map((text) => ({ by, text }));
  try {
    await writeFile(path, JSON.stringify({ by, items, sum }, null, 2));
    saves += 1;
  } catch (error) {
    console.error(error.message);
    refused += 1;
  }
  await new Promise((done) => setTimeout(done, 10));
}
console.log(`saves=${saves} refused=${refused}`);
