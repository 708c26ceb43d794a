// The loop of a JavaScript or TypeScript context: waits for "go", runs the order, says how it ended.
//
// User code shares this process. What is ours keeps its own references to what it needs, writes to
// the pipes and the channel synchronously, and describes values and errors only behind a guard.
"use strict";

const fs = require("node:fs");
const net = require("node:net");
const path = require("node:path");
const url = require("node:url");
const util = require("node:util");
const vm = require("node:vm");
const { createRequire, SourceMap } = require("node:module");
const { Writable } = require("node:stream");

const { channel, order, alarm, acorn, keepCompiled, rewrite, typeScript, values } = given;
const { bundleOf, cleanBundle, describe, isFrame } = values;
const { stringify } = JSON;
const nap = new Int32Array(new SharedArrayBuffer(4));
const evaluate = vm.Script.prototype.runInThisContext;

let running = null;
const cell = { number: 0, lineCount: 0, sourceMap: null };

// --- descriptors -------------------------------------------------------------------------------

function whenReady(call) {
  for (;;) {
    try {
      return call();
    } catch (error) {
      // Somebody made the pipe non-blocking, or its reader is slow.
      if (error.code !== "EAGAIN") throw error;
      Atomics.wait(nap, 0, 0, 1);
    }
  }
}

function writeAll(fd, data) {
  for (let at = 0; at < data.length; ) at += whenReady(() => fs.writeSync(fd, data, at));
}

function say(message) {
  writeAll(channel, Buffer.from(`${stringify(message)}\n`));
}

function awaitAcknowledgement() {
  const byte = Buffer.alloc(1);
  do {
    if (whenReady(() => fs.readSync(channel, byte)) === 0) process.reallyExit(0);
  } while (byte[0] !== 10);
}

// Node's own streams would queue what a full pipe does not take, and lose it at an exit.
function makeStream(fd) {
  const stream = new Writable({
    decodeStrings: true,
    write(chunk, _encoding, callback) {
      try {
        writeAll(fd, chunk);
      } catch (error) {
        callback(error);
        return;
      }
      callback();
    },
  });
  stream.fd = fd;
  stream._type = "pipe";
  stream.on("error", () => {});
  stream.destroy = stream.destroySoon = () => stream;
  stream.end = (...words) => {
    if (words.length && typeof words[0] !== "function") stream.write(words[0]);
    return stream;
  };
  return stream;
}

function replaceStreams() {
  for (const [name, fd] of [["stdout", 1], ["stderr", 2]]) {
    const stream = makeStream(fd);
    Object.defineProperty(process, name, { configurable: true, enumerable: true, get: () => stream });
  }
}

// --- what user code finds ------------------------------------------------------------------------

function here() {
  try {
    return process.cwd();
  } catch {
    return "/";
  }
}

const requires = new Map();
function currentRequire() {
  const directory = here();
  if (!requires.has(directory)) requires.set(directory, createRequire(path.join(directory, "cell.js")));
  return requires.get(directory);
}

function define(name, value) {
  Object.defineProperty(globalThis, name, { configurable: true, writable: true, enumerable: false, value });
}

function installGlobals() {
  const dynamicRequire = (id) => currentRequire()(id);
  Object.defineProperties(dynamicRequire, {
    resolve: { get: () => currentRequire().resolve },
    cache: { get: () => currentRequire().cache },
    main: { value: undefined },
  });
  define("require", dynamicRequire);
  define("module", { exports: {} });
  define("exports", globalThis.module.exports);
  define("display", display);
  define("__headrace_import", importModule);
  define("__headrace_meta", () => ({ url: url.pathToFileURL(path.join(here(), "cell.js")).href, dirname: here() }));
  for (const name of ["__dirname", "__filename"]) {
    const get = name === "__dirname" ? here : () => path.join(here(), "cell.js");
    Object.defineProperty(globalThis, name, { configurable: true, enumerable: false, get });
  }
}

async function importModule(specifier, names, attributes) {
  const load = `(specifier, options) => import(specifier, options)`;
  const importer = new vm.Script(load, {
    filename: path.join(here(), "[import]"),
    importModuleDynamically: vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
  });
  const options = Object.keys(attributes).length ? { with: attributes, assert: attributes } : undefined;
  const loaded = await evaluate.call(importer)(specifier, options);
  const missing = names.find((name) => !(name in loaded));
  if (missing !== undefined && !running?.isTypeScript) {
    throw new SyntaxError(`The requested module '${specifier}' does not provide an export named '${missing}'`);
  }
  return loaded;
}

// A name that a script declares must be an ordinary one: node's own, such as `crypto`, are not.
function makeAssignable(names) {
  for (const name of names) {
    const found = Object.getOwnPropertyDescriptor(globalThis, name);
    if (found && found.configurable && (found.get || found.set || !found.writable)) define(name, undefined);
  }
}

// --- values --------------------------------------------------------------------------------------

function show(bundle, isMain) {
  say({ type: "result", bundle, is_main: isMain });
  awaitAcknowledgement();
}

// Shows a value at once; with {raw: true} the value is a bundle, by MIME type.
function display(value, options) {
  if (options && options.raw) {
    show(cleanBundle(value), false);
    return;
  }
  const bundle = bundleOf(value);
  if (util.types.isPromise(bundle)) return bundle.then((made) => show(made, false));
  show(bundle, false);
}
for (const [name, mime] of Object.entries({
  html: "text/html", markdown: "text/markdown", svg: "image/svg+xml", png: "image/png",
  jpeg: "image/jpeg", latex: "text/latex", json: "application/json",
})) {
  display[name] = (value) => show(cleanBundle({ "text/plain": `[${mime}]`, [mime]: value }), false);
}

function tellUncaught(error) {
  const { name, value, traceback } = describe(error, cell);
  writeAll(2, Buffer.from(`Uncaught ${traceback || `${name}: ${value}`}\n`));
}

// --- one execution ---------------------------------------------------------------------------------

class Interrupted extends Error {}

// Ends an endless loop that code got into after an `await`, when no listener for SIGINT can run. It
// is a thread, which takes 25 ms and 11 MB: it is made when code first waits for something.
const GUARD = `
const { workerData: { alarm, state, grace } } = require("node:worker_threads");
const { Session } = require("node:inspector");
const session = new Session();
session.connectToMainThread();
const socket = new (require("node:net").Socket)({ fd: alarm, readable: true, writable: false });
socket.on("error", () => {}).on("data", () => {
  const number = Atomics.load(state, 0);
  const stop = () => Atomics.load(state, 0) === number && session.post("Runtime.terminateExecution");
  if (number) setTimeout(stop, grace);
});
`;
const GRACE_MS = 100;
const waitingFor = new Int32Array(new SharedArrayBuffer(4));
let guard = null;
function startGuard() {
  if (guard !== null || running === null) return;
  const { Worker } = require("node:worker_threads");
  const workerData = { alarm, state: waitingFor, grace: GRACE_MS };
  guard = new Worker(GUARD, { eval: true, workerData, env: {}, stdout: true, stderr: true });
  guard.on("error", () => {});
  guard.unref();
}

async function waitFor(promise, interrupted) {
  Atomics.store(waitingFor, 0, cell.number);
  setImmediate(startGuard);
  try {
    return await Promise.race([promise, interrupted]);
  } finally {
    Atomics.store(waitingFor, 0, 0);
  }
}

class Surroundings {
  enter({ env, cwd }) {
    this.former = new Map();
    for (const [name, value] of Object.entries(env)) {
      this.former.set(name, process.env[name]);
      process.env[name] = value;
    }
    this.directory = null;
    if (cwd !== null) {
      this.directory = here();
      process.chdir(cwd);
    }
  }
  leave() {
    for (const [name, value] of this.former) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
    try {
      if (this.directory !== null) process.chdir(this.directory);
    } catch {
      // It is gone, or may no longer be entered: stay where we are.
    }
  }
}

// Gives the script and what is to be known of it; throws a SyntaxError of the user's code.
function compile(code, filename, isTypeScript) {
  const plain = isTypeScript ? stripTypes(code, filename) : code;
  let made;
  try {
    made = rewrite(acorn(), plain, cell.sourceMap !== null);
  } catch (error) {
    throw betterError(error, plain, filename);
  }
  const script = new vm.Script(made.code, {
    filename,
    columnOffset: -made.prefix.length,
    importModuleDynamically: vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
  });
  return { ...made, script };
}

// V8 names errors better than the parser does, where it does not stumble over something else.
function betterError(error, code, filename) {
  try {
    new vm.Script(code, { filename });
  } catch (better) {
    if (!/await|import|export/.test(better.message)) {
      better.stack = better.stack.split("\n").filter((line) => !isFrame(line)).join("\n");
      return better;
    }
  }
  const message = error.message.replace(/ \(\d+:\d+\)$/, "");
  return makeSyntaxError(message, code, filename, error.loc.line, error.loc.column);
}

function makeSyntaxError(message, code, filename, line, column) {
  const made = new SyntaxError(message);
  const text = code.split("\n")[line - 1] ?? "";
  made.stack = `${filename}:${line}\n${text}\n${" ".repeat(column)}^\n\nSyntaxError: ${message}`;
  return made;
}

// Types become blanks; only what has a meaning at run time, such as an enum, needs a real compiler.
function stripTypes(code, filename) {
  const { transformSync } = typeScript();
  try {
    return transformSync(code, { mode: "strip-only", filename }).code;
  } catch (error) {
    if (error?.code !== "UnsupportedSyntax") throw fromCompiler(error, code, filename);
  }
  try {
    const made = transformSync(code, { mode: "transform", sourceMap: true, filename });
    cell.sourceMap = new SourceMap(JSON.parse(made.map));
    cell.lineCount = made.code.split("\n").length;
    return made.code;
  } catch (error) {
    throw fromCompiler(error, code, filename);
  }
}

function fromCompiler(error, code, filename) {
  if (error?.startLine === undefined) return error;
  return makeSyntaxError(error.message, code, filename, error.startLine, error.startColumn);
}

// Calls a function so that SIGINT ends it, also what it goes on with at once after an `await`.
const gate = new vm.Script("__headrace_call()", { filename: "headrace:gate" });
function callInterruptibly(what) {
  const before = process.listenerCount("SIGINT");
  let outcome;
  define("__headrace_call", () => {
    delete globalThis.__headrace_call;
    outcome = what();
    if (util.types.isPromise(outcome)) {
      outcome.catch(() => {});
      process._tickCallback?.();
    }
  });
  try {
    evaluate.call(gate, { breakOnSigint: true });
  } catch (error) {
    if (error?.code === "ERR_SCRIPT_EXECUTION_INTERRUPTED") throw new Interrupted();
    throw error;
  } finally {
    if (process.listenerCount("SIGINT") !== before) rearm();
  }
  return outcome;
}

// Node has put its own handler of the signal back over that of listeners that were added meanwhile.
function rearm() {
  const listeners = process.listeners("SIGINT");
  process.removeAllListeners("SIGINT");
  for (const listener of listeners) process.on("SIGINT", listener);
}

async function run(order) {
  cell.number += 1;
  const execution = { isTypeScript: order.typescript, interrupt: null };
  const interrupted = new Promise((_resolve, reject) => {
    execution.interrupt = () => reject(new Interrupted());
  });
  interrupted.catch(() => {});
  running = execution;
  cell.sourceMap = null;
  cell.lineCount = order.code.split("\n").length;
  const { script, hasValue, names } = compile(order.code, `[cell ${cell.number}]`, order.typescript);
  makeAssignable(names);
  let value = callInterruptibly(() => {
    say({ type: "begun" });
    return evaluate.call(script);
  });
  // An async script gives a promise, too.
  if (util.types.isPromise(value)) value = await waitFor(value, interrupted);
  if (!hasValue || value === undefined) return null;
  return waitFor(callInterruptibly(() => bundleOf(value)), interrupted);
}

// Says what was thrown; gives the status of the execution.
function tell(error) {
  if (error instanceof Interrupted) return "interrupted";
  try {
    say({ type: "error", ...callInterruptibly(() => describe(error, cell)) });
  } catch {
    return "interrupted";
  }
  return "error";
}

async function execute(order) {
  const surroundings = new Surroundings();
  let status = "ok";
  try {
    surroundings.enter(order);
    const bundle = await run(order);
    if (bundle !== null) show(bundle, true);
  } catch (error) {
    status = tell(error);
  }
  running = null;
  surroundings.leave();
  if (order.keeps_compiled) keepCompiled();
  say({ type: "done", status, exit_code: null });
}

// --- the loop ----------------------------------------------------------------------------------------

function listen() {
  let text = "";
  const socket = new net.Socket({ fd: channel, readable: true, writable: false });
  socket.on("data", (data) => {
    text += data.toString("latin1");
    const lines = text.split("\n");
    text = lines.pop();
    for (const line of lines) {
      if (line === "go") execute(JSON.parse(fs.readFileSync(`/dev/fd/${order}`, "utf8")));
    }
  });
  socket.on("end", () => process.reallyExit(0));
  socket.on("error", () => process.reallyExit(0));
}

// We use an interface of node that it calls experimental; users need not hear of that.
const { emitWarning } = process;
process.emitWarning = (warning, ...rest) => {
  if (!String(warning).includes("USE_MAIN_CONTEXT_DEFAULT_LOADER")) emitWarning(warning, ...rest);
};
replaceStreams();
installGlobals();
process.on("SIGINT", () => running?.interrupt());
process.on("uncaughtException", tellUncaught);
process.on("unhandledRejection", tellUncaught);
process.argv.length = 1;
listen();
