// Describes values and errors for people: pure, but it calls methods of user code, which may throw,
// lie or never end.
"use strict";

const util = require("node:util");

const MAX_REPRESENTATION = 8 * 1024 * 1024;
const MAX_TEXT = 1024 * 1024;
const FRAME = /^\s*at /;
const OURS = /^\s*at .*headrace:/;
const CALL = /^\s*at (?:Script\.runInThisContext|process\.runNextTicks) /;
const DISPLAY = Symbol.for("Jupyter.display");
const { inspect } = util;
const { stringify } = JSON;

// --- values --------------------------------------------------------------------------------------

function isPlain(value) {
  if (Array.isArray(value)) return true;
  if (typeof value !== "object" || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function imageType(value) {
  if (!(value instanceof Uint8Array)) return null;
  const head = Buffer.from(value.buffer, value.byteOffset, Math.min(value.byteLength, 4)).toString("latin1");
  if (head === "\x89PNG") return "image/png";
  return head.startsWith("\xff\xd8\xff") ? "image/jpeg" : null;
}

// Makes what may be sent: text and base64 as strings, JSON as it is.
function cleanBundle(bundle) {
  const clean = {};
  for (const [mime, value] of Object.entries(bundle)) {
    if (value instanceof Uint8Array) clean[mime] = Buffer.from(value).toString("base64");
    else if (/[/+]json$/.test(mime)) Object.assign(clean, jsonOf(mime, value));
    else clean[mime] = String(value);
  }
  return clean;
}

function jsonOf(mime, value) {
  try {
    const text = stringify(value);
    if (text !== undefined && text.length <= MAX_REPRESENTATION) return { [mime]: JSON.parse(text) };
  } catch {
    // A circle, a BigInt, or a toJSON that throws: then there is no JSON.
  }
  return {};
}

function textOf(value) {
  try {
    return inspect(value, { maxStringLength: MAX_TEXT });
  } catch (error) {
    return `<inspecting it threw ${error && error.name}>`;
  }
}

// Gives the bundle of a value, or a promise of it where the value itself says how it is shown.
function bundleOf(value) {
  const own = value !== null && typeof value === "object" ? value[DISPLAY] ?? value.toMimeBundle : undefined;
  if (typeof own !== "function") return plainBundle(value);
  const finish = (bundle) => cleanBundle({ "text/plain": textOf(value), ...bundle });
  const bundle = own.call(value);
  return util.types.isPromise(bundle) ? bundle.then(finish) : finish(bundle);
}

function plainBundle(value) {
  const bundle = { "text/plain": textOf(value) };
  const type = imageType(value);
  if (type) bundle[type] = Buffer.from(value).toString("base64");
  else if (isPlain(value)) Object.assign(bundle, jsonOf("application/json", value));
  return bundle;
}

// --- errors --------------------------------------------------------------------------------------

// Takes our frames out, what called us, and the line behind a script's last that calls the script.
function withoutOurs(text, cell) {
  const kept = [];
  let isBelowUs = false;
  for (const line of text.split("\n")) {
    if (!FRAME.test(line)) isBelowUs = false;
    else if (OURS.test(line)) isBelowUs = true;
    if (!isBelowUs && !isBehindTheEnd(line, cell) && !CALL.test(line)) kept.push(line);
    // What `inspect` says of an error's own properties begins at the end of its last frame.
    else if (line.endsWith(" {") && kept.length) kept[kept.length - 1] += " {";
  }
  return kept.join("\n");
}

// Without frames `inspect` puts brackets around.
function tracebackOf(error, cell) {
  let text = inspect(error);
  if (!/^\s*at /m.test(text) && text.startsWith("[") && text.endsWith("]")) text = text.slice(1, -1);
  return inSource(withoutOurs(text, cell), cell).slice(0, MAX_TEXT);
}

function isBehindTheEnd(line, cell) {
  const found = FRAME.test(line) && /\[cell (\d+)\]:(\d+):\d+\)?$/.exec(line);
  return Boolean(found) && Number(found[1]) === cell.number && Number(found[2]) > cell.lineCount;
}

// Gives name, value and traceback; `cell` is the script that runs: its number, its lines, its map.
function describe(error, cell) {
  try {
    if (util.types.isNativeError(error) || error instanceof Error) {
      return {
        name: String(error.name).slice(0, 1000),
        value: String(error.message).slice(0, MAX_TEXT),
        traceback: tracebackOf(error, cell),
      };
    }
    const text = textOf(error).slice(0, MAX_TEXT / 2);
    return { name: "Error", value: text, traceback: `Uncaught ${text}` };
  } catch {
    return { name: "Error", value: "<describing it threw an error>", traceback: "Error" };
  }
}

// Where a compiler moved the lines, say where they were.
function inSource(text, cell) {
  const map = cell.sourceMap;
  if (map === null) return text;
  const quoted = /^\[cell \d+\]:\d+\n[^]*?\n\n/; // V8 quotes what it ran
  return text.replace(quoted, "").replace(/\[cell (\d+)\]:(\d+):(\d+)/g, (whole, number, line, column) => {
    if (Number(number) !== cell.number) return whole;
    const found = map.findEntry(line - 1, column - 1);
    if (found.originalLine === undefined) return whole;
    return `[cell ${number}]:${found.originalLine + 1}:${found.originalColumn + 1}`;
  });
}

return { bundleOf, cleanBundle, describe, isFrame: (line) => FRAME.test(line) };
