// Makes the readers of src/kernels/program/records.ts: AssemblyScript classes for the WebAssembly kernels and C structs for
// native ones. Their text, so that tests can compare it; build-wasm.mjs writes it down.
import { readFileSync } from "node:fs";
import ts from "typescript";

/** A TypeScript module without imports, evaluated. */
export async function evaluate(url) {
  const { outputText } = ts.transpileModule(readFileSync(url, "utf8"), {
    compilerOptions: { module: ts.ModuleKind.ES2022, target: ts.ScriptTarget.ES2022 },
  });
  return import(`data:text/javascript,${encodeURIComponent(outputText)}`);
}

const capital = (name) => name[0].toUpperCase() + name.slice(1);
const snake = (name) => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
const notice = "Made by scripts/generate-records.mjs from src/kernels/program/records.ts.";

const scriptTypes = { address: "usize", size: "usize", i32: "i32", f32: "f32", flag: "i32" };
const cTypes = { address: "uint32_t", size: "uint32_t", i32: "int32_t", f32: "float", flag: "int32_t" };

/** Records with their words, items first; `byteLength` is that of the words, lists left out. */
const recordsOf = ({ items, operations, wordsOf }) =>
  [...Object.entries(items).map(([name, fields]) => [name, { fields }]), ...Object.entries(operations)].map(
    ([name, table]) => {
      const words = wordsOf(table);
      return { name, words, lists: Object.entries(table.lists ?? {}), byteLength: 4 * words.length };
    },
  );

/** AssemblyScript: an unmanaged class is its address, so that a field is one load. */
export function assemblyScript(table) {
  const records = recordsOf(table);
  const sizeOf = (item) => records.find(({ name }) => name === item)?.byteLength ?? 4;
  const classes = records.map(({ name, words, lists, byteLength }) => {
    const fields = words.map((word) => `  ${word.name}: ${scriptTypes[word.kind]};\n`).join("");
    let start = `changetype<usize>(this) + ${byteLength}`;
    const methods = lists.map(([list, item]) => {
      const plain = scriptTypes[item];
      const at = `${start} + <usize>n * ${sizeOf(item)}`;
      start += ` + <usize>this.${list}Length * ${sizeOf(item)}`;
      return `
  // @ts-ignore: decorator
  @inline
  ${list}(n: i32): ${plain ?? capital(item)} {
    return ${plain ? `load<${plain}>` : `changetype<${capital(item)}>`}(${at});
  }
`;
    });
    return `// @ts-ignore: decorator\n@unmanaged\nexport class ${capital(name)} {\n${fields}${methods.join("")}}\n`;
  });
  const codes = Object.keys(table.operations).map((name, n) => `export const op${capital(name)} = ${n + 1};\n`);
  return `// ${notice}\n\nexport const opEnd = ${table.programEnd};\n${codes.join("")}\n${classes.join("\n")}`;
}

/** C: a struct for every record, a function for every list, and all constants of layout.ts. */
export function cHeader(table, layout) {
  const records = recordsOf(table);
  const sizeOf = (item) => records.find(({ name }) => name === item)?.byteLength ?? 4;
  const structs = records.map(({ name, words, lists, byteLength }) => {
    const type = `rarefy_${snake(name)}`;
    const fields = words.map((word) => `  ${cTypes[word.kind]} ${snake(word.name)};\n`).join("");
    const checks = words.map(
      (word) => `_Static_assert(offsetof(${type}, ${snake(word.name)}) == ${word.offset}, "${name}.${word.name}");\n`,
    );
    let start = `(const char *)record + ${byteLength}`;
    const functions = lists.map(([list, item]) => {
      const of = cTypes[item] ?? `rarefy_${snake(item)}`;
      const text = `static inline const ${of} *${type}_${snake(list)}(const ${type} *record) {
  return (const ${of} *)(${start});
}
`;
      start += ` + (size_t)record->${snake(list)}_length * ${sizeOf(item)}`;
      return text;
    });
    return `typedef struct {\n${fields}} ${type};\n${checks.join("")}${functions.join("")}`;
  });
  const codes = Object.keys(table.operations).map((name, n) => `  rarefy_op_${snake(name)} = ${n + 1},\n`);
  const described = Object.keys(table.operations).map(
    (name) => `#define rarefy_record_of_${snake(name)} "${table.describeRecord(name)}"\n`,
  );
  const constants = Object.entries(layout).map(([name, value]) => `  rarefy_${snake(name)} = ${value},\n`);
  return `/* ${notice} */
#ifndef RAREFY_RECORDS_H
#define RAREFY_RECORDS_H

#include <stddef.h>
#include <stdint.h>

enum {
  rarefy_op_end = ${table.programEnd},
${codes.join("")}};

/* Constants of layout.ts. */
enum {
${constants.join("")}};

/* What records are made of, for the host of native kernels to compare. */
${described.join("")}
${structs.join("\n")}
#endif
`;
}
