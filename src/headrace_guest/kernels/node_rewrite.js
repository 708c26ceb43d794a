// Turns what people type into a notebook into a script that node runs: pure, no I/O.
//
// Scripts of one context share one global scope. So that what a script declares at its top level is
// there for the next one and may be declared again, `let`, `const` and `class` become `var`. A
// script that awaits or imports becomes an async function whose top-level names are made global
// first. Nothing is moved to another line, so that line numbers in errors are the user's.
"use strict";

const SKIPPED = new Set(["FunctionDeclaration", "FunctionExpression", "ArrowFunctionExpression"]);
const OPTIONS = {
  ecmaVersion: "latest",
  sourceType: "script",
  allowAwaitOutsideFunction: true,
  allowImportExportEverywhere: true,
  allowHashBang: true,
};

// Calls `visit` for each node outside of functions and class bodies; `parent` is the one around it.
function walk(node, visit, parent = null) {
  visit(node, parent);
  if (SKIPPED.has(node.type) || node.type === "ClassBody") return;
  for (const key of Object.keys(node)) {
    const value = node[key];
    if (Array.isArray(value)) {
      for (const item of value) if (item && typeof item.type === "string") walk(item, visit, node);
    } else if (value && typeof value.type === "string") {
      walk(value, visit, node);
    }
  }
}

function namesOf(pattern, found = []) {
  if (!pattern) return found;
  switch (pattern.type) {
    case "Identifier": found.push(pattern.name); break;
    case "ObjectPattern": pattern.properties.forEach((p) => namesOf(p.value || p.argument, found)); break;
    case "ArrayPattern": pattern.elements.forEach((e) => namesOf(e, found)); break;
    case "AssignmentPattern": namesOf(pattern.left, found); break;
    case "RestElement": namesOf(pattern.argument, found); break;
  }
  return found;
}

// Collects replacements of pieces of a text, and makes them all at once.
class Edits {
  constructor(code) {
    this.code = code;
    this.list = [];
  }
  replace(start, end, text) {
    // Later positions keep their lines.
    const lost = this.code.slice(start, end).split("\n").length - 1;
    this.list.push({ start, end, text: text + "\n".repeat(lost), order: this.list.length });
  }
  insert(at, text) {
    this.list.push({ start: at, end: at, text, order: this.list.length });
  }
  apply() {
    this.list.sort((a, b) => a.start - b.start || a.end - b.end || a.order - b.order);
    let result = "";
    let at = 0;
    for (const { start, end, text } of this.list) {
      result += this.code.slice(at, start) + text;
      at = end;
    }
    return result + this.code.slice(at);
  }
}

class Rewriter {
  constructor(code, tree, isCompiled) {
    this.code = code;
    this.tree = tree;
    this.isCompiled = isCompiled;
    this.edits = new Edits(code);
    this.names = new Set();
    this.head = "";
    this.isAsync = false;
  }

  rewrite() {
    walk(this.tree, (node) => {
      const awaits = node.type === "AwaitExpression" || (node.type === "ForOfStatement" && node.await);
      if (awaits || node.type === "ImportDeclaration") this.isAsync = true;
      if (node.type === "MetaProperty" && node.meta.name === "import") {
        this.edits.replace(node.start, node.end, "__headrace_meta()");
      }
    });
    const body = this.tree.body;
    // A compiler declares at the end what it made of a namespace.
    const last = body.findLast((node) => !(this.isCompiled && isBareVar(node)));
    for (const statement of body) this.rewriteTopLevel(statement, statement === last);
    if (this.isAsync) walk(this.tree, (node, parent) => this.rewriteNestedVar(node, parent));
    const code = this.edits.apply();
    const hasValue = last !== undefined && last.type === "ExpressionStatement";
    if (!this.isAsync) return { code, prefix: "", isAsync: false, hasValue, names: [...this.names] };
    const declared = this.names.size ? `var ${[...this.names].join(",")};` : "";
    const prefix = `${declared}(async () => {${this.head}`;
    return { code: `${prefix}${code}\n})()`, prefix, isAsync: true, hasValue, names: [...this.names] };
  }

  rewriteTopLevel(node, isLast) {
    switch (node.type) {
      case "VariableDeclaration": this.rewriteVariables(node); break;
      case "ClassDeclaration": this.rewriteClass(node); break;
      case "FunctionDeclaration": this.rewriteFunction(node); break;
      case "ImportDeclaration": this.rewriteImport(node); break;
      case "ExpressionStatement": if (isLast && this.isAsync) this.returnValue(node); break;
      case "ExportNamedDeclaration":
      case "ExportDefaultDeclaration":
      case "ExportAllDeclaration": this.rewriteExport(node); break;
    }
  }

  rewriteVariables(node) {
    if (node.kind !== "var" && node.kind !== "let" && node.kind !== "const") return;
    for (const { id } of node.declarations) namesOf(id).forEach((name) => this.names.add(name));
    if (this.isAsync) this.assign(node, node.kind !== "var");
    else if (node.kind !== "var") {
      this.edits.replace(node.start, node.start + node.kind.length, "var");
      for (const { init, end } of node.declarations) if (!init) this.edits.insert(end, " = void 0");
    }
  }

  // Turns a declaration into assignments; without a value only those that `resets`.
  assign(node, resets) {
    this.edits.replace(node.start, node.start + node.kind.length, "void (0");
    let at = node.start + node.kind.length;
    for (const { id, init, start, end } of node.declarations) {
      if (at < start) this.blank(at, start);
      this.edits.insert(start, ", (");
      if (!init) this.edits.insert(end, resets ? " = void 0)" : ")");
      else this.edits.insert(end, ")");
      at = end;
    }
    const isClosed = this.code[node.end - 1] === ";";
    this.edits.insert(isClosed ? node.end - 1 : node.end, isClosed ? ")" : ");");
  }

  // Takes out a comma between declarations, but not the comments and line breaks around it.
  blank(start, end) {
    const text = this.code.slice(start, end);
    const comma = text.replace(/\/\*[^]*?\*\/|\/\/[^\n]*/g, (c) => " ".repeat(c.length)).indexOf(",");
    if (comma >= 0) this.edits.replace(start + comma, start + comma + 1, " ");
  }

  rewriteClass(node) {
    this.names.add(node.id.name);
    this.edits.insert(node.start, `${this.isAsync ? "" : "var "}${node.id.name} = `);
    this.edits.insert(node.end, ";");
  }

  rewriteFunction(node) {
    this.names.add(node.id.name);
    if (this.isAsync) this.head += `globalThis.${node.id.name} = ${node.id.name};`;
  }

  rewriteImport(node) {
    const wanted = [];
    let target = "";
    for (const { type, local, imported } of node.specifiers) {
      this.names.add(local.name);
      if (type === "ImportNamespaceSpecifier") target += `${local.name} = __m;`;
      else {
        const name = type === "ImportDefaultSpecifier" ? "default" : imported.name ?? imported.value;
        wanted.push(name);
        target += `${local.name} = __m[${JSON.stringify(name)}];`;
      }
    }
    const options = {};
    for (const { key, value } of node.attributes || []) options[key.name ?? key.value] = value.value;
    const words = [node.source.value, wanted, options].map((word) => JSON.stringify(word)).join(", ");
    this.head += `{ const __m = await __headrace_import(${words});${target} }`;
    this.edits.replace(node.start, node.end, ";");
  }

  rewriteExport(node) {
    const inner = node.declaration;
    if (!inner) {
      this.edits.replace(node.start, node.end, ";");
    } else if (/Declaration$/.test(inner.type) && (inner.type === "VariableDeclaration" || inner.id)) {
      this.edits.replace(node.start, inner.start, "");
      this.rewriteTopLevel(inner, false);
    } else {
      this.edits.replace(node.start, inner.start, ";(");
      this.edits.insert(inner.end, ");");
    }
  }

  returnValue(node) {
    this.edits.insert(node.start, "return (");
    const isClosed = this.code[node.end - 1] === ";";
    this.edits.insert(isClosed ? node.end - 1 : node.end, "\n)");
  }

  // `var` in blocks and loops is a name of the script, too.
  rewriteNestedVar(node, parent) {
    if (node.type !== "VariableDeclaration" || node.kind !== "var" || parent === this.tree) return;
    if (parent && parent.type.startsWith("Export")) return;
    for (const { id } of node.declarations) namesOf(id).forEach((name) => this.names.add(name));
    if (parent && /^For(In|Of)Statement$/.test(parent.type) && parent.left === node) {
      this.edits.replace(node.start, node.start + 3, "");
    } else if (parent && parent.type === "ForStatement" && parent.init === node) {
      this.edits.replace(node.start, node.start + 3, "void (0");
      let at = node.start + 3;
      for (const { start, end } of node.declarations) {
        if (at < start) this.blank(at, start);
        this.edits.insert(start, ", (");
        this.edits.insert(end, ")");
        at = end;
      }
      this.edits.insert(node.end, ")");
    } else {
      this.assign(node, false);
    }
  }
}

function isBareVar(node) {
  return node.type === "VariableDeclaration" && node.kind === "var" && node.declarations.every((d) => !d.init);
}

// Gives {code, prefix, isAsync, hasValue, names}; throws acorn's SyntaxError.
function rewrite(acorn, code, isCompiled = false) {
  if (/^\s*\{/.test(code) && !/;\s*$/.test(code)) {
    try {
      // An object, not a block with a label.
      const object = `(${code}\n)`;
      const tree = acorn.parse(object, OPTIONS);
      if (tree.body.length === 1) return new Rewriter(object, tree, isCompiled).rewrite();
    } catch {
      // A block, then.
    }
  }
  return new Rewriter(code, acorn.parse(code, OPTIONS), isCompiled).rewrite();
}

return { rewrite };
