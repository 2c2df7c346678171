"""How a report looks: light, dark, narrow, printed. Okabe and Ito's colours, which all eyes tell apart."""

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1a1e23; --soft: #56606b; --line: #d3d8de; --shade: #f3f5f7;
  --c0: #0072b2; --c1: #b84a00; --c2: #00795a; --heat: 0 114 178; --warm: 213 94 0; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --ink: #e7eaed; --soft: #a5aeb8; --line: #3b434c;
  --shade: #1e2328; --c0: #56b4e9; --c1: #e69f00; --c2: #2cc29a; --heat: 86 180 233; --warm: 230 159 0; } }
* { box-sizing: border-box; }
html { font: 100%/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Noto Sans CJK SC", "PingFang SC",
  "Microsoft YaHei", sans-serif; background: var(--paper); color: var(--ink); -webkit-text-size-adjust: 100%; }
body { max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; overflow-wrap: anywhere; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; }
h2 { font-size: 1.3rem; margin: 3rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .3rem; }
ul { padding-left: 1.3rem; max-width: 46rem; }
p { margin: .5rem 0; max-width: 46rem; }
.subtitle, .note, .axis { color: var(--soft); }
.lead { font-size: 1.15rem; margin: 1.25rem 0; }
a { color: var(--c0); }
a:focus-visible, summary:focus-visible, .wide:focus-visible { outline: 3px solid var(--c0); outline-offset: 2px; }
.skip { position: absolute; left: -999rem; }
.skip:focus { position: static; }
nav ul, .legend { list-style: none; padding: 0; margin: .75rem 0; display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(11rem, 100%), 1fr)); gap: .75rem;
  margin: 1.5rem 0; }
.figures > div { background: var(--shade); border-radius: .5rem; padding: .7rem .9rem; }
.figures dt { color: var(--soft); font-size: .85rem; line-height: 1.35; }
.figures dd { margin: .2rem 0 0; font-size: 1.35rem; font-weight: 600; line-height: 1.25; }
figure { margin: 1.25rem 0; }
figcaption, caption { text-align: left; font-weight: 600; margin-bottom: .5rem; padding: 0 0 .35rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(16rem, 100%), 1fr)); gap: 0 2rem; }
.pair > figure { min-width: 0; }
.frame { position: relative; height: 17rem; margin: .8rem .6rem 1.7rem 3.6rem; border-left: 1px solid var(--soft);
  border-bottom: 1px solid var(--soft); }
.small .frame { height: 9rem; }
.frame svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: hidden; }
.frame span { position: absolute; font-size: .8rem; line-height: 1; color: var(--soft);
  font-variant-numeric: tabular-nums; white-space: nowrap; }
.frame .y { right: 100%; margin-right: .4rem; transform: translateY(50%); }
.frame .x { top: 100%; margin-top: .45rem; transform: translateX(-50%); }
.frame .x[style="left:0.00%"] { transform: none; }
.frame .x[style="left:100.00%"] { transform: translateX(-100%); }
.axis { font-size: .85rem; margin: -.2rem .6rem 0 3.6rem; max-width: none; text-align: right; }
.over { font-size: .85rem; color: var(--soft); margin: 0; }
.grid, .level, .curve, .dots { fill: none; vector-effect: non-scaling-stroke; }
.grid { stroke: var(--line); stroke-width: 1; }
.level { stroke: var(--soft); stroke-width: 1.6; }
.curve { stroke-width: 2; stroke-linejoin: round; }
.curve.c1 { stroke-width: 1.5; }
.dots { stroke-width: 7; stroke-linecap: round; }
.dots.c1 { stroke-width: 5; stroke-linecap: square; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); stroke-dasharray: 6 3; }
.legend { font-size: .9rem; margin: .6rem 0; }
.legend svg { width: 2rem; height: .75rem; margin-right: .45rem; vertical-align: middle; overflow: visible; }
details { margin: .6rem 0; }
summary { cursor: pointer; color: var(--c0); width: fit-content; }
.wide { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; margin: .75rem 0; font-size: .95rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line);
  font-weight: inherit; overflow-wrap: break-word; }
thead th { font-weight: 600; vertical-align: bottom; word-break: keep-all; }
tbody th { min-width: 5rem; }
tbody > tr > :first-child, .facts td { overflow-wrap: anywhere; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
caption::first-letter, figcaption::first-letter, dt::first-letter, thead th::first-letter { text-transform: uppercase; }
.facts th { color: var(--soft); width: 32%; }
.facts, .bars { width: 100%; }
.bars th { width: 30%; } .bars .bar { width: 40%; min-width: 4rem; vertical-align: middle; }
.bar svg { display: block; width: 100%; height: .8rem; background: var(--shade); }
.bar rect { fill: var(--c0); }
.matrix { font-size: .9rem; min-width: min(100%, 24rem); }
.matrix td { text-align: right; padding: .4rem .6rem; border: 1px solid var(--paper); min-width: 3rem;
  background: rgb(var(--heat) / var(--share)); font-variant-numeric: tabular-nums; print-color-adjust: exact;
  -webkit-print-color-adjust: exact; overflow-wrap: normal; }
.matrix td.right { outline: 2px solid var(--ink); outline-offset: -3px; font-weight: 600; }
.matrix th { min-width: 4rem; max-width: 10rem; } .matrix thead th { text-align: right; padding: .3rem .6rem; }
.matrix thead .corner { text-align: left; color: var(--soft); font-weight: 400; padding-left: 0; }
blockquote, pre, .shades { margin: .3rem 0 1rem; padding: .6rem .9rem; background: var(--shade); border-radius: .4rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
blockquote { border-left: 3px solid var(--line); }
pre, code { font-family: ui-monospace, "Cascadia Mono", "Noto Sans Mono", Menlo, monospace; font-size: .9rem; }
.above { margin: .9rem 0 .2rem; color: var(--soft); font-size: .9rem; }
.shades span { background: rgb(var(--warm) / var(--share)); print-color-adjust: exact;
  -webkit-print-color-adjust: exact; }
.shades .strong { text-decoration: underline; text-underline-offset: .2em; }
footer { margin-top: 3rem; color: var(--soft); font-size: .85rem; }
@media screen and (max-width: 36rem) {
  .stack, .stack caption, .stack tbody, .stack tr, .stack td { display: block; } .stack thead { display: none; }
  .stack tr { border-bottom: 1px solid var(--line); padding: .4rem 0; }
  .stack td, .stack td.n { border: 0; text-align: left; padding: .1rem 0; white-space: normal; }
  .stack td + td::before { content: attr(data-head) ": "; color: var(--soft); }
}
@media print {
  :root { color-scheme: light; --paper: #fff; --ink: #000; --soft: #444; --line: #bbb; --shade: #f3f5f7; --c0: #0072b2;
    --c1: #b84a00; --c2: #00795a; --heat: 0 114 178; --warm: 213 94 0; }
  html { font-size: 10pt; } body { max-width: none; padding: 0; }
  nav, .skip, details:not([open]), summary { display: none; }
  h2, h3, figcaption, caption, .above { break-after: avoid; }
  tr, blockquote, pre, .figures > div, .together { break-inside: avoid; }
  .frame { height: 12rem; } .small .frame { height: 6rem; }
  .wide { overflow: visible; }
  .figures > div, .shades, .bar svg, blockquote, pre { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
@page { margin: 16mm 15mm; }
"""
