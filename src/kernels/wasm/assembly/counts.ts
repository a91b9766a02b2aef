import { controlCounters } from "../../program/layout";

/** Adds to what a thread has counted: weight bytes read, inputs offered, inputs skipped. */
export function addCounts(thread: i32, bytes: f64, offered: f64, skipped: f64): void {
  const counter = <usize>controlCounters + ((<usize>thread) << 6);
  store<f64>(counter, load<f64>(counter) + bytes);
  store<f64>(counter, load<f64>(counter, 8) + offered, 8);
  store<f64>(counter, load<f64>(counter, 16) + skipped, 16);
}
