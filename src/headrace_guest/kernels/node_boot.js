// Reads our sources from memory and starts the loop: the file system of a sandbox has none of them.
//
// A part may come with what V8 made of it in an earlier process (`name.compiled`), which makes the
// start shorter. V8 takes it only if version and flags are the same.
"use strict";
{
  const fs = require("node:fs");
  const vm = require("node:vm");
  const [channel, order, program, alarm] = process.argv.slice(1).map(Number);
  const bytes = fs.readFileSync(`/dev/fd/${program}`);
  fs.closeSync(program);
  const head = bytes.indexOf(10);
  const parts = {};
  let at = head + 1;
  for (const [name, length] of Object.entries(JSON.parse(bytes.toString("utf8", 0, head)))) {
    parts[name] = bytes.subarray(at, (at += length));
  }
  const scripts = new Map();
  const load = (name, ...names) => {
    const head = `(function (require, ${names}) {`;
    const script = new vm.Script(`${head}${parts[name].toString()}\n})`, {
      filename: `headrace:${name}`,
      columnOffset: -head.length,
      cachedData: parts[`${name}.compiled`],
    });
    scripts.set(`${name}.compiled`, script);
    return script.runInThisContext();
  };
  const loadModule = (name) => {
    const module = { exports: {} };
    load(name, "module", "exports")(require, module, module.exports);
    return module.exports;
  };
  // Leaves in the order file, in the form of the program, what V8 had to make itself.
  const keepCompiled = () => {
    const made = [...scripts].filter(([_name, script]) => script.cachedDataRejected !== false);
    const parts = made.map(([name, script]) => [name, script.createCachedData()]);
    const lengths = Object.fromEntries(parts.map(([name, part]) => [name, part.length]));
    const all = [Buffer.from(`${JSON.stringify(lengths)}\n`), ...parts.map(([_name, part]) => part)];
    fs.writeFileSync(`/dev/fd/${order}`, Buffer.concat(all));
  };
  let acorn, typeScript;
  load("loop", "given")(require, {
    channel,
    order,
    alarm,
    keepCompiled,
    rewrite: load("rewrite")(require).rewrite,
    values: load("values")(require),
    acorn: () => (acorn ??= loadModule("acorn")),
    typeScript: () => (typeScript ??= loadModule("amaro")),
  });
}
