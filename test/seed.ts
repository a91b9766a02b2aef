/** Property tests draw the same cases in every run; RAREFY_TEST_SEED draws others. */
import fc from "fast-check";

fc.configureGlobal({ seed: Number(process.env.RAREFY_TEST_SEED ?? 20_261_122) });
