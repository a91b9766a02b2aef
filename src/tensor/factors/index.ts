import type { ChainStep, FactorKind, FactorParts, Factors, MatrixShape, PartShape, RowWriter } from "./contract.js";
import { kronecker, morphemes, word2ket } from "./kronecker.js";
import { product } from "./product.js";
import { tensorTrain } from "./tensorTrain.js";
import { tucker } from "./tucker.js";

export type * from "./contract.js";
export { morphemeNormEpsilon } from "./kronecker.js";
export { balancedModes, digitsOf, productOfModes } from "./modes.js";
export { trainShape } from "./tensorTrain.js";

const kinds: { readonly [Kind in Factors["kind"]]: FactorKind<Factors & { kind: Kind }> } = {
  product,
  "tensor-train": tensorTrain,
  tucker,
  kronecker,
  word2ket,
  morphemes,
};

const kindOf = ({ kind }: Factors) => kinds[kind] as FactorKind;

/** What keeps factors from making a matrix of that shape, in words; nothing where they do. */
export const factorProblems = (factors: Factors, shape: MatrixShape): string[] =>
  kindOf(factors).problems(factors, shape);

/** Shapes of the parts, by name. */
export const factorPartShapes = (factors: Factors, shape: MatrixShape): Readonly<Record<string, PartShape>> =>
  kindOf(factors).parts(factors, shape);

const entries = ({ shape }: PartShape) => shape.reduce((all, size) => all * size, 1);

/** Numbers that are learnt: all parts but tables of integers. */
export const factorParameters = (factors: Factors, shape: MatrixShape): number =>
  Object.values(factorPartShapes(factors, shape)).reduce(
    (sum, part) => sum + (part.below === undefined ? entries(part) : 0),
    0,
  );

/** Bytes of all parts, integers included, which take 4 each. @param numberBytes of a learnt number */
export const factorBytes = (factors: Factors, shape: MatrixShape, numberBytes: number): number =>
  Object.values(factorPartShapes(factors, shape)).reduce(
    (sum, part) => sum + entries(part) * (part.below === undefined ? numberBytes : 4),
    0,
  );

/** Makes rows of W one at a time, in f64 sums. */
export const factorRows = (factors: Factors, shape: MatrixShape, parts: FactorParts): RowWriter =>
  kindOf(factors).rowWriter(factors, shape, parts);

/** f32 [rows, cols]: all of W. */
export function factorMatrix(factors: Factors, shape: MatrixShape, parts: FactorParts): Float32Array {
  const { rows, cols } = shape;
  const write = factorRows(factors, shape, parts);
  const out = new Float32Array(rows * cols);
  for (let row = 0; row < rows; row++) write(row, out.subarray(row * cols, (row + 1) * cols));
  return out;
}

/** W·x in small products; undefined for kinds that only make rows. A train's dense rows are not among them. */
export const factorChain = (factors: Factors, shape: MatrixShape, parts: FactorParts): ChainStep[] | undefined =>
  kindOf(factors).chain?.(factors, shape, parts);

/** Rows and columns of the products of a chain; undefined without one. */
export function chainShapes(
  factors: Factors,
  shape: MatrixShape,
): { name: string; rows: number; cols: number }[] | undefined {
  const zeros = Object.entries(factorPartShapes(factors, shape)).map(
    ([name, part]) => [name, new Float32Array(entries(part))] as const,
  );
  return factorChain(factors, shape, Object.fromEntries(zeros));
}

/** Why a chain cannot be run on a backend, whose products come in fours; undefined where it can. */
export function chainProblem(factors: Factors, shape: MatrixShape): string | undefined {
  const { scoreProblem } = kindOf(factors);
  if (scoreProblem !== undefined) return scoreProblem(factors);
  const products = chainShapes(factors, shape);
  if (products === undefined) return `nothing can be multiplied with ${factors.kind} factors`;
  const odd = products.find(({ rows, cols }) => rows % 4 !== 0 || cols % 4 !== 0);
  return odd && `${odd.name} is multiplied as ${odd.rows} × ${odd.cols}; only multiples of 4 can be run`;
}
