/** Makes buttons of a tab list show their panels: by click, and by the arrow keys, Home and End as in other tab lists. */
export function wireTabs(list: HTMLElement): void {
  const tabs = Array.from(list.querySelectorAll<HTMLButtonElement>("[role=tab]"));
  for (const [at, tab] of tabs.entries()) {
    tab.addEventListener("click", () => selectTab(tab));
    tab.addEventListener("keydown", (event) => {
      const to = targets[event.key]?.(at, tabs.length);
      if (to === undefined) return;
      event.preventDefault();
      selectTab(tabs[(to + tabs.length) % tabs.length]);
      tabs[(to + tabs.length) % tabs.length].focus();
    });
  }
}

const targets: Readonly<Record<string, (at: number, count: number) => number>> = {
  ArrowLeft: (at) => at - 1,
  ArrowRight: (at) => at + 1,
  Home: () => 0,
  End: (_, count) => count - 1,
};

export function selectTab(chosen: HTMLElement): void {
  for (const tab of chosen.parentElement!.querySelectorAll<HTMLButtonElement>("[role=tab]")) {
    const selected = tab === chosen;
    tab.setAttribute("aria-selected", String(selected));
    tab.tabIndex = selected ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")!)!.hidden = !selected;
  }
}
