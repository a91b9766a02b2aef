import { UsageError } from "../../core/index.js";

/** What was right and what was chosen, of each document. */
export interface Labels {
  gold: ArrayLike<number>;
  predicted: ArrayLike<number>;
}

/** Classes that occur, and how often each was right, chosen, and both; of the documents at `indices`. */
function countsByClass({ gold, predicted }: Labels, indices: ArrayLike<number>) {
  const classes = new Map<number, { gold: number; predicted: number; both: number }>();
  const of = (label: number) => {
    let counts = classes.get(label);
    if (counts === undefined) {
      counts = { gold: 0, predicted: 0, both: 0 };
      classes.set(label, counts);
    }
    return counts;
  };
  for (let i = 0; i < indices.length; i++) {
    const [right, chosen] = [gold[indices[i]], predicted[indices[i]]];
    of(right).gold++;
    of(chosen).predicted++;
    if (right === chosen) of(right).both++;
  }
  return classes;
}

const f1Of = ({ gold, predicted, both }: { gold: number; predicted: number; both: number }) =>
  gold + predicted === 0 ? 0 : (2 * both) / (gold + predicted);

/** F1 of class 1, of two classes. @throws UsageError for more of them */
export function binaryF1(labels: Labels, indices: ArrayLike<number>): number {
  const classes = countsByClass(labels, indices);
  const other = Array.from(classes.keys()).find((label) => label !== 0 && label !== 1);
  if (other !== undefined) throw new UsageError(`f1 is of two classes, and there is class ${other}; take macro_f1`);
  const counts = classes.get(1);
  return counts === undefined ? 0 : f1Of(counts);
}

/** Mean over the classes that occur of their F1. */
export function macroF1(labels: Labels, indices: ArrayLike<number>): number {
  const each = Array.from(countsByClass(labels, indices).values(), f1Of);
  return each.reduce((sum, f1) => sum + f1, 0) / each.length;
}

/** Matthews' correlation of what is right and what was chosen, of any number of classes (Gorodkin, 2004); 0 where either never varies. */
export function matthewsCorrelation(labels: Labels, indices: ArrayLike<number>): number {
  const n = indices.length;
  let [both, products, golds, choices] = [0, 0, 0, 0];
  for (const counts of countsByClass(labels, indices).values()) {
    both += counts.both;
    products += counts.gold * counts.predicted;
    golds += counts.gold ** 2;
    choices += counts.predicted ** 2;
  }
  const variance = (n ** 2 - golds) * (n ** 2 - choices);
  return variance === 0 ? 0 : (both * n - products) / Math.sqrt(variance);
}
