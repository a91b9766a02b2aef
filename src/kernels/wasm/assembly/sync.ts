import { controlArena, controlBarrierCount, controlBarrierPhase, controlFailed, controlTicket, controlWork } from "../../program/layout";

// Each thread has its own instance of the module, and so its own copy of these.
let threads: i32 = 1;
let mayBlock: bool = true;
let spins: i32 = 0;
let lastTicket: u32 = 0;
let native: i32 = 0;

// @ts-ignore: decorator
@external("env", "native")
declare function callNative(kernel: i32, record: usize): i32;

/** @param blocking 0 on a page's main thread, which may not wait on memory. @param spinCount looks before sleeping.
 * @param nativeMask which of the kernels of `nativeMatvec` … the host has native ones for */
export function configure(threadCount: i32, blocking: i32, spinCount: i32, nativeMask: i32): void {
  threads = threadCount;
  mayBlock = blocking != 0;
  spins = spinCount;
  native = nativeMask;
}

/** Lets a native kernel do the calling thread's work on a record; false where there is none that can. */
export function ranNative(kernel: i32, record: usize): bool {
  return (native & (1 << kernel)) != 0 && callNative(kernel, record) != 0;
}

export function threadCount(): i32 {
  return threads;
}

/** Looks `count` times at a flag that does not change: how the host learns what a look costs. */
export function spin(count: i32): void {
  for (let i = 0; i < count; i++) {
    if (atomic.load<u32>(controlTicket) == 0xffffffff) return;
  }
}

/**
 * Waits until all threads have arrived. The last to arrive resets the work counter for the next phase. Traps once a thread has
 * failed: its host sets `controlFailed` first and moves the phase on after it, so that whoever misses the flag sees the phase.
 */
export function barrier(): void {
  if (threads == 1) {
    store<u32>(controlWork, 0);
    return;
  }
  const phase = atomic.load<u32>(controlBarrierPhase);
  if (atomic.load<u32>(controlFailed) != 0) unreachable();
  if (atomic.add<u32>(controlBarrierCount, 1) + 1 == <u32>threads) {
    atomic.store<u32>(controlBarrierCount, 0);
    atomic.store<u32>(controlWork, 0);
    atomic.store<u32>(controlBarrierPhase, phase + 1);
    atomic.notify(controlBarrierPhase, -1);
    return;
  }
  waitWhile(controlBarrierPhase, phase);
  if (atomic.load<u32>(controlFailed) != 0) unreachable();
}

function waitWhile(address: usize, value: u32): void {
  for (let i = 0; i < spins || !mayBlock; i++) {
    if (atomic.load<u32>(address) != value) return;
  }
  while (atomic.load<u32>(address) == value) atomic.wait<i32>(address, <i32>value, -1);
}

/** Next work item of the running phase: 0, 1, 2 … over all threads. */
export function takeWork(): i32 {
  if (threads == 1) {
    const item = load<i32>(controlWork);
    store<i32>(controlWork, item + 1);
    return item;
  }
  return <i32>atomic.add<u32>(controlWork, 1);
}

/** Called by a worker on the first memory: sleeps until a program is to be run; returns the memory it is for. */
export function park(): i32 {
  waitWhile(controlTicket, lastTicket);
  lastTicket = atomic.load<u32>(controlTicket);
  return atomic.load<i32>(controlArena);
}

/** Called by the host on the first memory: wakes the workers for a program in memory `arena`. */
export function wake(arena: i32): void {
  atomic.store<i32>(controlArena, arena);
  atomic.add<u32>(controlTicket, 1);
  atomic.notify(controlTicket, -1);
}
