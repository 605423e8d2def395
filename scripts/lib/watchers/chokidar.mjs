// Node's chokidar (MODULE, in MODULES) on PATH: FILE is read a moment after each of its events; what was read goes out as a line.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// A save is several events, and chokidar leaves out those that come within 5 ms of another: who reads at once may find a file that was just truncated,
// on any filesystem.
const LATER_MS = 100;
const [modules, module, path, file] = process.argv.slice(2);
const found = createRequire(`${modules}/`).resolve(module);
const { watch } = await import(pathToFileURL(found).href);
const lastLine = () => {
  try {
    console.log(`saw ${readFileSync(file, "utf8").trimEnd().split("\n").pop()}`);
  } catch {
    console.log("saw none");
  }
};
const watcher = watch(path, { ignoreInitial: true, ignored: (name) => name.includes(".concord") });
watcher.on("ready", () => console.log("ready"));
watcher.on("all", () => setTimeout(lastLine, LATER_MS));
