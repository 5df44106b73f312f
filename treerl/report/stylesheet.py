"""The style sheet of a run's page: light and dark, wide and narrow, screen and paper."""

CSS = """
:root{color-scheme:light dark;--page:#f7f7f4;--card:#fff;--ink:#1b2230;--soft:#5c6675;--faint:#8b94a1;--rule:#e6e6e0;
--accent:#0d7f78;--accent-soft:#0d7f781f;--positive:#c4520b;--negative:#1f62c4;--window:#f3f1e8;--ode:#a9b0ba;--bad:#b3261e}
@media (prefers-color-scheme:dark){:root{--page:#11141a;--card:#191d25;--ink:#e7e9ee;--soft:#a7afbc;--faint:#7b8494;
--rule:#2a303b;--accent:#4cc9bd;--accent-soft:#4cc9bd26;--positive:#f5924e;--negative:#76aaff;--window:#222732;
--ode:#596272;--bad:#ff8a80}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue","Liberation Sans",Arial,sans-serif;-webkit-text-size-adjust:100%}
main{overflow-x:clip;max-width:1120px;margin:0 auto;padding:44px 24px 72px}
h1{font-size:1.05rem;font-weight:600;margin:0;color:var(--soft)}
h2{font-size:1.3rem;font-weight:650;letter-spacing:-.01em;margin:0 0 4px}
h3{font-size:.92rem;font-weight:600;margin:0}
p{margin:0 0 12px;max-width:72ch}
section{margin-top:52px}
.lead{color:var(--soft);margin-bottom:18px}
.note{color:var(--soft);font-size:.88rem}table+.note{margin-top:10px}
.card{background:var(--card);border:1px solid var(--rule);border-radius:12px;padding:20px 22px}
.card>:last-child{margin-bottom:0}
.top{display:flex;flex-wrap:wrap;gap:6px 14px;align-items:center;margin-bottom:14px}
.pill{font-size:.78rem;font-weight:600;padding:2px 10px;border-radius:99px;background:var(--accent-soft);
color:var(--accent)}
.pill.interrupted,.pill.running{background:#c4820b22;color:var(--positive)}
.pill.failed{background:#b3261e22;color:var(--bad)}
.result{font-size:clamp(1.55rem,4.2vw,2.5rem);line-height:1.18;font-weight:680;letter-spacing:-.022em;margin:0 0 14px;
max-width:36ch;text-wrap:balance}
.result b{color:var(--accent);font-weight:inherit;white-space:nowrap}
.result .was{color:var(--faint);white-space:nowrap}
.warn{border-left:3px solid var(--positive);padding:8px 14px;background:var(--card);max-width:none;border-radius:4px;
overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:1px;background:var(--rule);
border:1px solid var(--rule);border-radius:12px;overflow:hidden;margin-top:26px}
.tiles div{background:var(--card);padding:13px 18px}
.tiles span{display:block;font-size:.8rem;color:var(--soft)}
.tiles b{font-size:1.15rem;font-weight:620;font-variant-numeric:tabular-nums}
.pairs{display:grid;grid-template-columns:repeat(auto-fill,minmax(228px,1fr));gap:14px}
figure{margin:0;background:var(--card);border:1px solid var(--rule);border-radius:12px;padding:12px;break-inside:avoid}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:8px}
.shot{position:relative;min-width:0}
.shot img,.none{display:block;width:100%;aspect-ratio:1;border-radius:6px;object-fit:contain;background:var(--window)}
.none{display:grid;place-items:center;text-align:center;font-size:.75rem;color:var(--soft);padding:8px}
.pixels{image-rendering:pixelated}
.shot p{display:flex;justify-content:space-between;margin:5px 0 0;font-size:.78rem;color:var(--soft);
font-variant-numeric:tabular-nums}
.shot p b{color:var(--ink);font-weight:600}
.yes{color:var(--accent);font-weight:700}.no{color:var(--positive);font-weight:700}
figcaption{margin-top:8px;font-size:.88rem;line-height:1.35;overflow-wrap:anywhere}
details>summary{cursor:pointer;color:var(--accent);font-size:.92rem;font-weight:600;margin:16px 0}
.chart{display:grid;grid-template:1fr auto/auto 1fr;font-size:.72rem;color:var(--faint);
font-variant-numeric:tabular-nums}
.plot{grid-area:1/2;position:relative;height:92px}
.large .plot{height:290px}
.plot svg{position:absolute;inset:0;width:100%;height:100%;overflow:visible;display:block}
.plot path{vector-effect:non-scaling-stroke;fill:none}
.grid{stroke:var(--rule);stroke-width:1}
.plot .band{fill:var(--accent-soft);stroke:none}
.raw{stroke:var(--accent);stroke-width:1.2;opacity:.45}
.line{stroke:var(--accent);stroke-width:1.8}
.trend{stroke:var(--accent);stroke-width:2.8;stroke-linecap:round;stroke-linejoin:round}
.dot{stroke:var(--accent);stroke-width:7;stroke-linecap:round}
.yaxis{grid-area:1/1;position:relative;width:40px}
.yaxis span{position:absolute;right:8px;transform:translateY(-50%);white-space:nowrap}
.xaxis{grid-area:2/2;position:relative;height:20px}
.xaxis span{position:absolute;top:5px;transform:translateX(-50%);white-space:nowrap}
.hits{position:absolute;inset:0}
.hits i{position:absolute;top:0;bottom:0}
.hits i:hover{background:linear-gradient(var(--faint),var(--faint)) center/1px 100% no-repeat}
.hits i::after{content:attr(data-tip);display:none;position:fixed}
.hits:hover{z-index:1}
.hits i:hover::after{display:block;position:absolute;bottom:calc(100% + 2px);left:50%;transform:translateX(-50%);
background:var(--ink);color:var(--card);font-style:normal;font-size:.75rem;padding:3px 9px;border-radius:6px;
white-space:nowrap;pointer-events:none}
.marks{display:flex;flex-wrap:wrap;gap:4px 20px;font-size:.82rem;color:var(--soft);margin:0 0 14px 40px}
.marks i{display:inline-block;width:22px;height:0;border-top:3px solid var(--accent);vertical-align:middle;
margin-right:7px}
.marks .m-raw{border-top-width:1px;opacity:.7}.marks .m-band{height:11px;border:0;background:var(--accent-soft)}
.small{display:grid;grid-template-columns:repeat(auto-fill,minmax(242px,1fr));gap:14px;margin-top:14px}
.small .card{padding:14px 18px 8px 8px;display:flex;flex-direction:column}.small .chart{margin-top:auto}
.small header{display:flex;justify-content:space-between;gap:8px;padding-left:12px}
.small header b{font-size:.92rem;font-weight:600;font-variant-numeric:tabular-nums}
.small p{font-size:.78rem;line-height:1.35;color:var(--soft);margin:0 0 12px 12px;min-height:2.7em}
.scroll{overflow-x:auto}
.tree{display:block;width:100%;min-width:820px;font-size:11.5px;font-variant-numeric:tabular-nums}
.tree path{fill:none}.tree text{fill:var(--soft)}
.tree .window{fill:var(--window)}
.tree .step,.tree .head{text-anchor:middle;fill:var(--faint)}.tree .first{text-anchor:start}.tree .last{text-anchor:end}
.tree .sampled{fill:var(--ink);font-weight:600}
.tree .ode{stroke:var(--ode);stroke-width:1.3}.tree .early{stroke:var(--ode);stroke-dasharray:1 4}
.tree .sde{stroke:var(--ode)}.tree .touch{stroke:transparent;stroke-width:14}
.tree .positive{stroke:var(--positive)}.tree .negative{stroke:var(--negative)}
.tree .sde.none{stroke-dasharray:4 4}
.tree .number{text-anchor:end;font-weight:600;paint-order:stroke;stroke:var(--window);stroke-width:3.5px}
.tree .number.positive{fill:var(--positive)}.tree .number.negative{fill:var(--negative)}
.tree .branch{fill:var(--card);stroke:var(--faint);stroke-width:1.2}
.leaf image{transition:transform .15s;transform-box:fill-box;transform-origin:100% 50%}
.leaf image:hover{transform:translateX(-56px) scale(3)}
.tree .value{text-anchor:middle;font-size:10.5px}
.tree .frame{fill:none;stroke:var(--rule)}.tree .absent{fill:none;stroke:var(--faint);stroke-dasharray:3 3}
.tree .score{text-anchor:end;font-size:12.5px;fill:var(--ink)}.tree rect.score{fill:var(--faint)}
.tree .best{font-weight:700}.tree rect.best{fill:var(--accent)}
.legend{break-before:avoid}
.legend{display:flex;flex-wrap:wrap;gap:8px 26px;font-size:.82rem;color:var(--soft);margin-top:16px;padding-top:14px;
border-top:1px solid var(--rule)}
.key{display:inline-flex;align-items:center;gap:9px}
.key i{display:inline-block;flex:none}
.key-ode{width:26px;border-top:1.5px solid var(--ode)}.key-window{width:26px;height:14px;background:var(--window);
border:1px solid var(--rule)}
.key-branch{width:24px;height:13px;border-radius:9px;border:1.2px solid var(--faint)}
.hint{display:none}.ramped{white-space:nowrap}
.ramp{width:96px;height:8px;border-radius:9px;vertical-align:middle;
background:linear-gradient(90deg,var(--negative),var(--ode),var(--positive))}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:8px 10px;border-bottom:1px solid var(--rule);font-weight:400;vertical-align:middle}
tr>:first-child{text-align:left;padding-left:0}tr:last-child>*{border-bottom:0}
thead th{color:var(--soft);font-size:.8rem}tbody th small{display:block;color:var(--soft);font-size:.8rem}
.group th{font-size:.8rem;font-weight:600;color:var(--soft);padding-top:20px}
.meter{display:inline-block;width:72px;height:6px;border-radius:9px;background:var(--rule);overflow:hidden;
vertical-align:middle}
.meter i{display:block;height:100%;background:var(--accent)}
.two{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1fr);gap:0 32px}
.two section{min-width:0}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:5px 22px;margin:0;font-size:.9rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
code,pre{font:.84rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace}
pre{overflow-x:auto;margin:0}
footer{margin-top:52px;color:var(--faint);font-size:.84rem}
@media (max-width:880px){.hint{display:block}.two{grid-template-columns:minmax(0,1fr)}}
@media (max-width:560px){main{padding:26px 14px 48px}section{margin-top:40px}.card{padding:14px}
.pairs{grid-template-columns:minmax(0,1fr)}.large .plot{height:210px}.meter{width:44px}th,td{padding:7px 6px}
.tiles{grid-template-columns:1fr 1fr}.tiles div:last-child:nth-child(odd){grid-column:1/-1}
.marks{margin-left:0}dl{grid-template-columns:minmax(0,1fr);gap:0}
dd{margin-bottom:9px}.small .card{padding:12px 12px 6px 4px}.small p{min-height:0}}
@media print{:root{--page:#fff}body{font-size:10.5pt;print-color-adjust:exact;-webkit-print-color-adjust:exact}
main{max-width:none;padding:0}section{margin-top:26pt}.card,table,.tree,.tiles{break-inside:avoid}
.pairs{grid-template-columns:repeat(3,1fr)}.small{grid-template-columns:repeat(3,1fr)}h2,.lead{break-after:avoid}
.tree{min-width:0;max-height:170mm}.lead{break-inside:avoid}.tiles{grid-template-columns:repeat(5,1fr)}
.two{grid-template-columns:1fr 1fr}table{font-size:9pt}.meter{width:36px}th,td{padding:4pt}.hint,.hits{display:none}}
"""
