import { Html } from "./html.js";
import { svgStyle } from "./svg.js";

/** One column on a phone, two where there is room, ink on paper. */
export const style = new Html(`
:root { color-scheme: light dark; --ink: #1a1d21; --soft: #667080; --line: #d8dde3; --paper: #fff; --accent: #2563a8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #98a2ae; --line: #343b44; --paper: #15181c; --accent: #6ea8e0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 74rem; font: 16px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
h1 { font-size: 1.4rem; margin: .2rem 0 .6rem; overflow-wrap: anywhere; } section + section { margin-top: 3rem; border-top: 2px solid var(--ink); padding-top: 1rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; } h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; overflow-wrap: anywhere; }
p { margin: .4rem 0; max-width: 44rem; } .soft { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .45rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); } th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { font-weight: 600; vertical-align: bottom; } tr.source td { font-weight: 600; } td i { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .4em; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--paper); padding-right: .8rem; } .key { display: inline-block; margin-right: 1rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem 1.5rem; }
figure { margin: 0; } figcaption { font-size: .95rem; margin-bottom: .2rem; } svg { width: 100%; height: auto; max-width: 30rem; }
${svgStyle.text.trim()}
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr)); gap: 1rem .8rem; } .pictures figure { max-width: 9rem; } .pictures img { width: 100%; height: auto; image-rendering: pixelated; border: 1px solid var(--line); display: block; margin-bottom: .3rem; } .pictures figcaption { font-size: .75rem; color: var(--soft); overflow-wrap: anywhere; }
.histograms figure { max-width: 15rem; } .histograms figcaption { font-size: .8rem; } .histograms { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: .5rem; }
details { border-top: 1px solid var(--line); padding: .5rem 0; } summary { cursor: pointer; font-weight: 600; overflow-wrap: anywhere; } pre { font-size: .8rem; white-space: pre-wrap; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .9rem; } dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media print { body { max-width: none; font-size: 11px; padding: 0; } figure, tr, .pictures { break-inside: avoid; } details:not([open])::details-content { content-visibility: visible; display: block; } .scroll { overflow: visible; } }
`);
