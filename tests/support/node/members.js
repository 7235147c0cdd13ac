// Writes what a module's types declare and what it has: for each exported name the members of the class, or null.
import { readFileSync } from "node:fs";
import ts from "typescript";

const [module, types] = process.argv.slice(2);

function declared() {
  const found = {};
  for (const one of ts.createSourceFile(types, readFileSync(types, "utf8"), ts.ScriptTarget.Latest).statements) {
    if (!one.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword)) continue;
    if (ts.isClassDeclaration(one)) {
      found[one.name.text] = one.members.filter(({ name }) => name).map(({ name }) => name.text);
    } else if (!ts.isInterfaceDeclaration(one) && !ts.isTypeAliasDeclaration(one)) {
      found[one.name.text] = null;
    }
  }
  return found;
}

/** Methods and accessors of the class, and the fields of one that was made of `given`; the private are not seen. */
function membersOf(made, given) {
  if (!/^class\b/.test(made.toString())) return null;
  const one = new made(given);
  one.close?.();
  return [...Object.getOwnPropertyNames(made.prototype).filter((name) => name !== "constructor"), ...Object.keys(one)];
}

const actual = Object.entries(await import(module)).map(([name, made]) => [name, membersOf(made, {})]);
process.stdout.write(JSON.stringify({ declared: declared(), actual: Object.fromEntries(actual) }));
