"use client";
import { useEffect } from "react";
import { generate } from "../../generate.js";

export default function Page() {
  useEffect(() => {
    globalThis.generate = generate;
  }, []);
  return <main>rarefy</main>;
}
