import { afterAll, beforeAll, describe } from "vitest";
import type { Backend } from "../../src/kernels/index.js";
import { areaSuite } from "./areaSuite.js";
import { attentionSuite } from "./attentionSuite.js";
import { codedKvSuite } from "./codedKvSuite.js";
import { elementwiseSuite } from "./elementwiseSuite.js";
import { expertSuite } from "./expertSuite.js";
import { fusedSuite } from "./fusedSuite.js";
import { fuzzSuite } from "./fuzzSuite.js";
import { gramSuite } from "./gramSuite.js";
import type { BackendUnderTest } from "./harness.js";
import { inputChoiceSuite } from "./inputChoiceSuite.js";
import { keysSuite, morphemeSuite } from "./keysSuite.js";
import { linearSuite } from "./linearSuite.js";
import { nonFiniteSuite } from "./nonFiniteSuite.js";
import { regionSuite } from "./regionSuite.js";
import { sightSuite } from "./sightSuite.js";
import { sinksAndLatentSuite } from "./sinksAndLatentSuite.js";
import { storageSuite } from "./storageSuite.js";

/** Everything `Backend` promises, against an f64 oracle. A new backend is done when this passes. */
export function backendSuite(subject: BackendUnderTest): void {
  // A GPU emulated on a busy machine is slow.
  describe(`backend ${subject.name}`, () => {
    let opened: Backend;
    const backend = () => opened;
    beforeAll(async () => {
      opened = await subject.create();
    });
    afterAll(() => opened[Symbol.dispose]());

    storageSuite(backend, subject);
    regionSuite(backend, subject);
    linearSuite(backend, subject);
    areaSuite(backend);
    attentionSuite(backend, subject);
    sinksAndLatentSuite(backend, subject);
    sightSuite(backend, subject);
    inputChoiceSuite(backend);
    keysSuite(backend, subject.tolerances);
    morphemeSuite(backend, subject.tolerances);
    codedKvSuite(backend, subject);
    elementwiseSuite(backend, subject);
    gramSuite(backend);
    expertSuite(backend, subject);
    nonFiniteSuite(backend, subject);
    if (subject.fuses) fusedSuite(backend, subject);
    fuzzSuite(backend, subject);
  });
}
