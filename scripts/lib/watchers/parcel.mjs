// @parcel/watcher (VS Code, Cursor) on the directory: FILE is read at each batch of its events; what was read goes out as a line.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [modules, file] = process.argv.slice(2);
const { subscribe } = createRequire(`${modules}/`)("@parcel/watcher");
const lastLine = () => {
  try {
    return readFileSync(file, "utf8").trimEnd().split("\n").pop();
  } catch {
    return "none";
  }
};
await subscribe(process.cwd(), () => console.log(`saw ${lastLine()}`));
console.log("ready");
