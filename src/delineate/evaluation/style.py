"""The style sheet of HTML reports: light and dark, wide and narrow, screen and print."""

from __future__ import annotations

STYLE = """
:root {
  --paper: #f7f8fa; --card: #ffffff; --ink: #16191d; --muted: #5a6472; --line: #dde1e7;
  --right: #1f6feb; --wrong: #d9480f; --bar: #3b82f6; --focus: #1f6feb;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #111418; --card: #1a1e24; --ink: #e8eaed; --muted: #9aa5b3; --line: #2e353f;
    --right: #1f6feb; --wrong: #c2410c; --bar: #4c94ff; --focus: #79b0ff;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; max-width: 76rem; padding: 2rem 1.5rem 4rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
h1 { margin: 0; font-size: 1.75rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2.75rem 0 .5rem; font-size: 1.25rem; }
h3 { margin: 0; font-size: 1rem; font-weight: 600; overflow-wrap: anywhere; }
.subtitle { margin: .35rem 0 0; color: var(--muted); overflow-wrap: anywhere; }
.intro { margin: 0 0 1rem; max-width: 46rem; color: var(--muted); }
.none { color: var(--muted); }
:focus-visible { outline: 2px solid var(--focus); outline-offset: 2px; }

.cards {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .75rem;
  margin-top: 1.5rem;
}
.card {
  display: flex; flex-direction: column; padding: .9rem 1rem; background: var(--card);
  border: 1px solid var(--line); border-radius: .6rem;
}
.card .label { color: var(--muted); font-size: .875rem; overflow-wrap: anywhere; }
.card .value {
  font-size: 1.75rem; font-weight: 650; line-height: 1.3; font-variant-numeric: tabular-nums;
}
.card .note { color: var(--muted); font-size: .8125rem; }

.choices { display: flex; flex-wrap: wrap; gap: .5rem 1.25rem; margin: 0; color: var(--muted); }
.choices select { font: inherit; color: var(--ink); background: var(--paper); }
.scroll {
  overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
}
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.list { width: 100%; }
.list th, .list td {
  padding: .5rem .9rem; text-align: left; border-top: 1px solid var(--line);
}
.list thead th {
  border-top: 0; color: var(--muted); font-size: .8125rem; font-weight: 600; white-space: nowrap;
}
.list tbody th { font-weight: 500; overflow-wrap: anywhere; min-width: 8rem; }
.list tfoot th, .list tfoot td { font-weight: 650; border-top: 2px solid var(--line); }
.list .num { text-align: right; white-space: nowrap; }
.list td.bar {
  min-width: 6.5rem;
  background:
    linear-gradient(var(--bar), var(--bar)) .9rem calc(100% - .3rem) /
      calc((100% - 1.8rem) * var(--v)) 3px no-repeat,
    linear-gradient(var(--line), var(--line)) .9rem calc(100% - .3rem) /
      calc(100% - 1.8rem) 3px no-repeat;
}
.swatch {
  display: inline-block; width: .85em; height: .85em; margin-right: .5em; border-radius: .2em;
  border: 1px solid color-mix(in srgb, var(--ink) 35%, transparent); vertical-align: -.06em;
}

.matrix { margin: .75rem 1rem 1rem; font-size: .8125rem; }
.matrix caption {
  padding: 0 0 .4rem; color: var(--muted); text-align: left; white-space: nowrap;
}
.matrix th { font-weight: 500; }
.matrix tbody th {
  position: sticky; left: 0; z-index: 1; max-width: 13rem; padding: 0 .6rem 0 .25rem;
  background: var(--card); text-align: right; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis;
}
.matrix thead th { vertical-align: bottom; padding: .25rem; }
.matrix thead .turned {
  display: inline-block; max-height: 11rem; writing-mode: vertical-rl; transform: rotate(180deg);
  white-space: nowrap; overflow: hidden; text-overflow: ellipsis; vertical-align: bottom;
}
.matrix td {
  min-width: var(--cell); width: var(--cell); height: var(--cell); padding: 0; text-align: center;
  border: 1px solid var(--card); color: var(--ink);
  background: color-mix(in srgb, var(--wrong) calc(var(--v, 0) * 100%), var(--paper));
}
.matrix thead td { height: auto; }
.matrix td.right {
  font-weight: 600;
  background: color-mix(in srgb, var(--right) calc(var(--v, 0) * 100%), var(--paper));
}
.matrix td.strong { color: #ffffff; }
.matrix td.faint { color: var(--muted); }
.matrix td.blank { background: none; color: var(--muted); }

/* Beside each other where both fit, else one below the other. */
.pair { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.pair > * { max-width: 100%; }
.pair > .rest { flex: 1 1 24rem; min-width: 0; }
.rest h3 { margin: .4rem 0 .6rem; }

.legend {
  display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; margin: 0 0 1rem; padding: .6rem .9rem;
  background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  font-size: .875rem; list-style: none;
}
.legend li { overflow-wrap: anywhere; }
.legend.few { position: sticky; top: .5rem; z-index: 2; }
.case {
  margin: 0 0 1rem; padding: .9rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; break-inside: avoid;
}
.case header { display: flex; justify-content: space-between; gap: 1rem; margin-bottom: .6rem; }
.case header span { white-space: nowrap; font-variant-numeric: tabular-nums; }
.panels { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: .6rem; }
.panels figure { margin: 0; }
.panels img {
  display: block; width: 100%; height: auto; max-height: 32rem; object-fit: contain;
  border-radius: .3rem; background: var(--paper);
}
.panels img.tiny { image-rendering: pixelated; }
.panels figcaption { margin-top: .2rem; color: var(--muted); font-size: .8125rem; }

.range { display: block; color: var(--muted); font-size: .75rem; }
.reliability { width: 22rem; color: var(--ink); font-size: 13px; }
.reliability text { fill: var(--muted); }
.reliability .frame { fill: var(--card); stroke: var(--line); }
.reliability .bars { fill: var(--bar); }
.reliability .ideal { fill: none; stroke: var(--wrong); stroke-width: 1.5; stroke-dasharray: 5 4; }

.facts { display: grid; gap: .35rem; margin: 0; }
.facts div { display: grid; grid-template-columns: 12rem minmax(0, 1fr); gap: 1rem; }
.facts dt { color: var(--muted); }
.facts dd { margin: 0; overflow-wrap: anywhere; }
details { margin-top: 1rem; max-width: 52rem; }
summary { cursor: pointer; color: var(--muted); }

@media (max-width: 46rem) {
  body { padding: 1.25rem .9rem 3rem; }
  .panels { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .cards { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .list th, .list td { padding: .5rem .6rem; }
  .list td.bar { min-width: 4.75rem; }
  .matrix tbody th { max-width: 7rem; }
  .facts div { grid-template-columns: 1fr; gap: 0; margin-bottom: .35rem; }
  .legend.few { position: static; }
}
@media print {
  body { max-width: none; padding: 0; }
  .legend.few { position: static; }
  * { print-color-adjust: exact; }
}
"""
