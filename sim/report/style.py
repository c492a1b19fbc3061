"""How the page of `sim conform` looks: light and dark, from 320 pixels on."""

STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --panel: #f4f6f8; --text: #1b1f24; --dim: #57606a;
  --line: #d0d7de; --link: #0550ae; --pass: #116329; --fail: #a40e26; --unknown: #7a4a00; --skip: #57606a;
  --mark: #ffffff }
@media (prefers-color-scheme: dark) { :root { --ground: #0d1117; --panel: #161b22; --text: #e6edf3; --dim: #9198a1;
  --line: #3d444d; --link: #79c0ff; --pass: #56d364; --fail: #ff7b72; --unknown: #e3b341; --skip: #9198a1;
  --mark: #0d1117 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--ground); color: var(--text);
  font: 1rem/1.5 system-ui, "Segoe UI", "Liberation Sans", Arial, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0 }
h2 { font-size: 1.2rem; margin: 2rem 0 .4rem }
h3, h4 { display: inline; font-size: 1em; font-weight: 400 }
h4 { font-weight: 600 }
p, ul, ol, dl, pre { margin: .5rem 0 }
a { color: var(--link) }
a:focus-visible, summary:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; border-radius: 2px }
main:focus { outline: none }
.skip-link { position: absolute; left: -99rem }
.skip-link:focus { position: static }
code, pre { font: .875em/1.45 ui-monospace, "Cascadia Mono", "DejaVu Sans Mono", monospace }
pre { white-space: pre-wrap; padding: .4rem .6rem; background: var(--ground); border-left: 3px solid var(--line) }
code span { display: inline-block; max-width: 100% }
.legend { color: var(--dim) }
.totals { font-size: 1.1rem }
nav ul { display: inline; padding: 0 }
nav li { display: inline-block; margin-right: .8rem }
nav a { display: inline-block; padding: .1rem 0 }
.verdict { font-weight: 600; white-space: nowrap }
.pass { color: var(--pass) } .fail { color: var(--fail) } .unknown { color: var(--unknown) }
.skip, .not-offered { color: var(--skip) }
table { width: 100%; border-collapse: collapse; table-layout: fixed; border-bottom: 1px solid var(--line) }
th, td { padding: .35rem .6rem; text-align: left; vertical-align: top }
thead th { color: var(--dim); font-weight: 400; font-size: .875rem }
thead th:nth-child(1) { width: 7.5rem } thead th:nth-child(2) { width: 8.5rem }
thead th:nth-child(3) { width: 8rem } thead th:nth-child(4) { width: 4.5rem }
.number, thead th:nth-child(3), thead th:nth-child(4) { text-align: right; font-variant-numeric: tabular-nums }
tbody tr:first-child > * { border-top: 1px solid var(--line) }
.more > td { padding-top: 0 }
summary { cursor: pointer; color: var(--dim) }
details[open] > summary, summary:hover { color: var(--text) }
details > div { scroll-margin-top: 7rem }
.more > td > details > div { padding: .2rem 1rem .6rem; margin: .4rem 0; background: var(--panel); border-radius: 4px }
.trial { border-top: 1px solid var(--line); padding: .4rem 0 }
.trial > summary { color: var(--text) }
.problems { list-style: none; padding: 0; color: var(--fail) }
.problems li { padding-left: 1.2em; text-indent: -1.2em }
.strip-words { margin-bottom: .2rem }
.strip { line-height: 0; margin-bottom: .6rem }
.strip i { display: inline-block; width: .8rem; height: 1.1rem; margin: 1px; border-radius: 2px; text-align: center;
  font: 700 .7rem/1.1rem ui-monospace, "DejaVu Sans Mono", monospace; background: var(--line); color: var(--text) }
.strip .bad { background: var(--fail); color: var(--mark) }
.strip .unknown { background: var(--unknown); color: var(--mark) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem }
dt { color: var(--dim) } dd { margin: 0 }
@media (max-width: 40rem) {
  body { padding: .6rem }
  thead { position: absolute; left: -99rem }
  table, tbody { display: block }
  tbody { border-top: 1px solid var(--line); padding: .4rem 0 }
  tr { display: grid; grid-template-columns: 3.2rem 1fr auto auto; gap: 0 .8rem }
  tbody tr:first-child > * { border: 0 }
  th, td { padding: .1rem 0 }
  .why, .more > td { grid-column: 1 / -1 }
  .why:empty { display: none }
  .number:not(:empty)::before { content: attr(data-head) " "; color: var(--dim) }
  .more > td > details > div { padding: .2rem .6rem }
  ol { padding-left: 1.6rem }
}
@media print { .more > td > details > div { background: none } }
"""
