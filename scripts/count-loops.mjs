// Counts the instructions in the innermost loops of disassembled code, which docs/native.md compares kernels by. Reads what objdump prints, or
// V8 for 64-bit ARM:
//   zig cc -target aarch64-linux-musl -mcpu=generic+dotprod -O3 -ffp-contract=off -DRAREFY_SET=dotprod -c src/kernels/native/set.c -o set.o
//   aarch64-linux-gnu-objdump -d set.o | node scripts/count-loops.mjs --having sdot,fmla
//   zig cc -target x86_64-linux-musl -mavx2 -mfma -mbmi2 -mpopcnt -O3 -ffp-contract=off -DRAREFY_SET=avx2 -c src/kernels/native/set.c -o set.o
//   objdump -d --no-show-raw-insn set.o | node scripts/count-loops.mjs --having vpmaddubsw,vpmaddwd,vfmadd231ps
//   node --no-liftoff --print-wasm-code PROGRAM | node scripts/count-loops.mjs --having smull,fmla     on ARM, or emulated
// A line says where a loop is, its instructions, and how many of them are of the kinds asked for.
import { readFileSync } from "node:fs";
import { readOptions } from "./options.mjs";

const { values } = readOptions({ options: { having: { type: "string", default: "smull,sdot,usdot,usmmla,fmla" } } });
const kinds = values.having.split(",");

/** Functions with their instructions: address, name, and where they may go. */
const functions = [];
for (const line of readFileSync(0, "utf8").split("\n")) {
  // objdump: "0000000000001968 <add_group_q8>:", V8: "index: 62"
  const begin = /^(?:[0-9a-f]+ <(.+)>:|index: (\d+))$/.exec(line);
  if (begin !== null) functions.push({ name: begin[1] ?? `function ${begin[2]}`, code: [] });
  // objdump: "    1974:	6d0627e8 	stp	d8, d9, [sp, #96]", V8: "0x1dc394d240    20  eb2563ff       cmp sp, x5"
  const found =
    /^ *([0-9a-f]+):\s+(?:[0-9a-f]{8}\s+)?(\S+)\s*(.*)$/.exec(line) ??
    /^0x([0-9a-f]+)\s+[0-9a-f]+\s+[0-9a-f]{8}\s+(\S+)\s*(.*)$/.exec(line);
  if (found === null || functions.length === 0) continue;
  const [, address, name, rest] = found;
  const to = /(?:addr 0x|\b)([0-9a-f]+)(?:\)| <[^>]*>)$/.exec(rest)?.[1];
  const jumps = /^(?:b|b\..*|cbn?z|tbn?z|j[a-z]+)$/.test(name);
  functions
    .at(-1)
    .code.push({ address: Number.parseInt(address, 16), name, to: jumps && to ? Number.parseInt(to, 16) : undefined });
}

for (const { name, code } of functions) {
  const places = new Map(code.map(({ address }, n) => [address, n]));
  const loops = code.flatMap(({ to }, last) => {
    const first = places.get(to);
    return first !== undefined && first <= last ? [{ first, last }] : [];
  });
  const holds = (a, b) => a !== b && a.first <= b.first && b.last <= a.last;
  for (const loop of loops.filter((outer) => !loops.some((inner) => holds(outer, inner)))) {
    const body = code.slice(loop.first, loop.last + 1);
    const counts = kinds.map((kind) => [kind, body.filter((instruction) => instruction.name === kind).length]);
    const present = counts.filter(([, count]) => count > 0).map(([kind, count]) => `${count} ${kind}`);
    if (present.length > 0) console.log(`${name}: ${body.length} instructions, ${present.join(", ")}`);
  }
}
