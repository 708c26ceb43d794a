// Reads our sources from memory and starts the loop: the file system of a sandbox has none of them.
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
  const load = (name, ...names) =>
    vm.compileFunction(parts[name].toString(), ["require", ...names], { filename: `headrace:${name}` });
  const loadModule = (name) => {
    const module = { exports: {} };
    load(name, "module", "exports")(require, module, module.exports);
    return module.exports;
  };
  let acorn, typeScript;
  load("loop", "given")(require, {
    channel,
    order,
    alarm,
    rewrite: load("rewrite")(require).rewrite,
    values: load("values")(require),
    acorn: () => (acorn ??= loadModule("acorn")),
    typeScript: () => (typeScript ??= loadModule("amaro")),
  });
}
