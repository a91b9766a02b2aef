// What all views of the page share.

export const element = <E extends HTMLElement>(id: string): E => document.getElementById(id) as E;
export const percent = (share: number) => `${Math.round(100 * share)} %`;
export const megabytes = (bytes: number) => `${(bytes / 1e6).toPrecision(3)} MB`;

/** A new element. @param properties those of the DOM: `textContent`, `className`, `title` */
export function made<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Partial<HTMLElementTagNameMap[K]> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

export function button(textContent: string, action: () => unknown, properties: Partial<HTMLButtonElement> = {}) {
  const node = made("button", { type: "button", textContent, ...properties });
  node.addEventListener("click", action);
  return node;
}

/** Makes a part scroll sideways where there is no room for it, for the keyboard too. */
export const scrolling = <E extends HTMLElement>(part: E, ariaLabel: string): E => {
  part.classList.add("scroll");
  return Object.assign(part, { tabIndex: 0, role: "region", ariaLabel });
};

/** Time left in words: a coarse one, as an estimate is. */
export function timeLeft(milliseconds: number): string {
  const seconds = Math.ceil(milliseconds / 1000);
  if (seconds < 90) return `${seconds} s left`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min left` : `${(minutes / 60).toPrecision(2)} h left`;
}

/** Has the browser save a file. */
export function save(file: Blob, name: string): void {
  const url = URL.createObjectURL(file);
  made("a", { href: url, download: name }).click();
  // The download has begun by then; what is shown of it keeps the bytes.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
