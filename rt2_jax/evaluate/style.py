"""The page's look and the few lines of script that its films need. Nothing here is fetched from anywhere."""

CSS = """
:root{color-scheme:light dark;--bg:#fbfaf8;--panel:#fff;--ink:#1b1d22;--soft:#5d626c;--faint:#747a85;--line:#e6e3dd;
--policy:#2563c9;--unseen:#5b9bd8;--emergent:#8a6fd1;--control-a:#b9b4aa;--control-b:#d6d1c7;--paper-a:#c2410c;
--paper-b:#8f8678;--good:#1f8a54;--bad:#c33c30;--l0:#2563c9;--l1:#c2410c;--l2:#1f8a54;--l3:#8a4fbf;--l4:#b7791f;--l5:#3f7f8c;
--shadow:0 1px 2px rgba(30,25,15,.05),0 6px 20px rgba(30,25,15,.05)}
@media(prefers-color-scheme:dark){:root:not([data-theme=light]){--bg:#14161a;--panel:#1c1f25;--ink:#e9eaed;--soft:#a9afba;
--faint:#8b919c;--line:#2e323a;--policy:#6ea3f5;--unseen:#4878b8;--emergent:#a48fe6;--control-a:#646a75;--control-b:#464b54;
--paper-a:#f28b52;--paper-b:#a39a8b;--good:#4cc38a;--bad:#ef7a6d;--l0:#6ea3f5;--l1:#f28b52;--l2:#4cc38a;--l3:#c08df0;
--l4:#e0b25a;--l5:#6fb9c7;--shadow:none}}
:root[data-theme=dark]{color-scheme:dark;--bg:#14161a;--panel:#1c1f25;--ink:#e9eaed;--soft:#a9afba;--faint:#8b919c;--line:#2e323a;
--policy:#6ea3f5;--unseen:#4878b8;--emergent:#a48fe6;--control-a:#646a75;--control-b:#464b54;--paper-a:#f28b52;
--paper-b:#a39a8b;--good:#4cc38a;--bad:#ef7a6d;--l0:#6ea3f5;--l1:#f28b52;--l2:#4cc38a;--l3:#c08df0;--l4:#e0b25a;--l5:#6fb9c7;
--shadow:none}
:root[data-theme=light]{color-scheme:light}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif;
font-variant-numeric:tabular-nums}
main{max-width:1040px;margin:0 auto;padding:40px 24px 72px}
header{position:relative}
h1{font-size:34px;line-height:1.15;letter-spacing:-.02em;margin:2px 0 10px;font-weight:680}
h2{font-size:21px;letter-spacing:-.01em;margin:0 0 4px;font-weight:650}
section{margin-top:52px}
p{margin:0 0 12px;max-width:74ch}
.over{color:var(--policy);font-weight:600;font-size:13px;letter-spacing:.06em;text-transform:uppercase}
.lead{font-size:18px;color:var(--ink);max-width:68ch}
.soft,.about{color:var(--soft)}.about{font-size:14.5px;margin-bottom:16px}
.meta{color:var(--faint);font-size:13.5px}
code{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
button,select{font:inherit;font-size:13.5px;color:var(--ink);background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:5px 12px;
cursor:pointer}
button:hover{border-color:var(--faint)}button[aria-pressed=true]{background:var(--ink);color:var(--bg);border-color:var(--ink)}
:focus-visible{outline:2px solid var(--policy);outline-offset:2px}
#theme{position:absolute;right:0;top:0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(172px,1fr));gap:14px;margin-top:28px}
.card,.panel{background:var(--panel);border:1px solid var(--line);border-radius:14px;box-shadow:var(--shadow)}
.card{padding:16px 18px}.panel{padding:20px 22px;overflow-x:auto}
.panel+.panel{margin-top:14px}
.card .name{font-size:13.5px;color:var(--soft);font-weight:550}
.card .big{font-size:38px;line-height:1.15;letter-spacing:-.03em;font-weight:680}
.card .small{font-size:12.5px;color:var(--faint);line-height:1.4}
.meter{position:relative;height:6px;border-radius:3px;background:var(--line);margin:7px 0 8px}
.meter i{position:absolute;top:0;bottom:0;left:0;border-radius:3px;background:var(--tone)}
.meter b{position:absolute;top:-2px;bottom:-2px;border:solid var(--ink);border-width:0 1.5px;opacity:.55}
.meter b:after{content:"";position:absolute;left:0;right:0;top:50%;height:1.5px;margin-top:-.75px;background:var(--ink)}
.legend{display:flex;flex-wrap:wrap;gap:5px 18px;font-size:13.5px;color:var(--soft);margin:2px 0 12px}
.legend span{display:inline-flex;align-items:center;gap:7px}
.legend i{width:13px;height:13px;border-radius:3px;display:inline-block}
.legend .dia{width:9px;height:9px;border-radius:0;transform:rotate(45deg)}
.legend .ring{width:10px;height:10px;border-radius:50%;background:none!important;border:2px solid var(--paper-b)}
.plot{display:block;width:100%;min-width:600px;height:auto;font:13.5px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
.plot text{fill:var(--ink)}.plot .tick{fill:var(--faint);font-size:12px}.plot .small{font-size:12px}.plot .faint{fill:var(--faint)}
.plot .heading{fill:var(--soft);font-size:12px;font-weight:650;letter-spacing:.03em}
.plot .label{font-weight:550}.plot .value{font-weight:600;font-size:12.5px}.plot .value.faint{font-weight:450;font-size:11.5px}
.plot .grid{stroke:var(--line);fill:none}.plot .axis{stroke:var(--faint);fill:none}.plot .whisker{stroke:var(--ink);stroke-width:1.3;fill:none;opacity:.62}
.plot g:hover .fill{filter:brightness(1.12)}
.policy{fill:var(--policy);background:var(--policy)}.unseen{fill:var(--unseen);background:var(--unseen)}
.emergent{fill:var(--emergent);background:var(--emergent)}.other{fill:var(--l5);background:var(--l5)}
.wrong_instruction{fill:var(--control-a);background:var(--control-a)}.other_image{fill:var(--control-b);background:var(--control-b)}
.s0{fill:var(--l0);background:var(--l0)}.s1{fill:var(--l1);background:var(--l1)}.s2{fill:var(--l2);background:var(--l2)}
.s3{fill:var(--l3);background:var(--l3)}.s4{fill:var(--l4);background:var(--l4)}.s5{fill:var(--l5);background:var(--l5)}
.paper{fill:var(--paper-a);background:var(--paper-a)}.plot .paper-ring{fill:none;stroke:var(--paper-b);stroke-width:2}
.plot .band{stroke-width:5;stroke-linecap:round;opacity:.4}.gain{stroke:var(--good)}.loss{stroke:var(--bad)}
.plot .before{fill:var(--panel);stroke:var(--faint);stroke-width:2.4}.plot .after{fill:var(--policy)}
.plot .curve{fill:none;stroke-width:2;stroke-linejoin:round}.plot .faint-curve{stroke:var(--line)}
.line-0{stroke:var(--l0)}.line-1{stroke:var(--l1)}.line-2{stroke:var(--l2)}.line-3{stroke:var(--l3)}.line-4{stroke:var(--l4)}.line-5{stroke:var(--l5)}
.plot .name-0{fill:var(--l0)}.plot .name-1{fill:var(--l1)}.plot .name-2{fill:var(--l2)}.plot .name-3{fill:var(--l3)}.plot .name-4{fill:var(--l4)}
.plot .name-5{fill:var(--l5)}
table{border-collapse:collapse;width:100%;font-size:14px}
th{font-weight:550;color:var(--soft);text-align:left;font-size:13px}
td,th{padding:7px 12px 7px 0;border-bottom:1px solid var(--line);vertical-align:middle}
tr:last-child td{border-bottom:0}.n{text-align:right}td.strong{font-weight:600}
.matrix td,.matrix th{padding:4px}.matrix th.row{padding-right:14px;white-space:nowrap;color:var(--ink)}.matrix tr td,.matrix tr th{border:0}
.cell{display:block;border-radius:8px;padding:6px 10px;min-width:84px;background:color-mix(in srgb,var(--policy) calc(var(--v)*62%),var(--bg));line-height:1.25}
.cell.deep{color:#fff}
.cell small{display:block;font-size:11.5px;opacity:.78}
.bar{display:inline-block;height:8px;border-radius:2px;background:var(--policy);vertical-align:middle;min-width:1px}
.films{display:grid;grid-template-columns:repeat(auto-fill,minmax(228px,1fr));gap:16px}
.film{margin:0;background:var(--panel);border:1px solid var(--line);border-radius:14px;overflow:hidden;box-shadow:var(--shadow);
display:flex;flex-direction:column}
.film[hidden]{display:none}
.screen{position:relative;overflow:hidden;aspect-ratio:var(--w)/var(--h);background:var(--line);cursor:pointer}
.strip{position:absolute;left:0;top:0;width:100%;height:calc(var(--n)*100%);animation:play calc(var(--n)*.16s) steps(var(--n)) infinite}
.js .strip{animation:none}
@keyframes play{to{transform:translateY(-100%)}}
@media(prefers-reduced-motion:reduce){.strip{animation:none}}
.badge{position:absolute;left:10px;top:10px;font-size:12px;font-weight:650;padding:2px 9px;border-radius:99px;color:#fff}
.badge.ok{background:#1f8a54}.badge.no{background:#c33c30}
.badge.step{left:auto;right:10px;background:rgba(15,17,20,.62);font-weight:500}
.film input{width:100%;margin:0;display:none;accent-color:var(--policy);height:16px}.js .film input{display:block}
figcaption{padding:8px 14px 14px;font-size:14px;line-height:1.4;display:flex;flex-direction:column;gap:6px;flex:1}
.said{font-weight:600}.said:before{content:"\\201C"}.said:after{content:"\\201D"}
.told{color:var(--bad);font-size:13px}.where{font-size:12.5px;color:var(--faint)}
.tokens{display:grid;grid-template-columns:repeat(8,1fr);gap:3px;margin-top:auto;padding-top:4px}
.tokens span{font:11.5px/1 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;text-align:center;padding:5px 0 4px;background:var(--bg);border-radius:5px;
position:relative;border:1px solid var(--line)}
.tokens small{display:block;font:9.5px/1.2 system-ui,sans-serif;color:var(--faint);margin-top:3px}
.physical{font-size:12px;color:var(--soft);min-height:2.8em}
.filters{display:none;flex-wrap:wrap;gap:8px;margin-bottom:16px;align-items:center}.js .filters{display:flex}
.filters .gap{flex:0 0 8px}
details{margin-top:14px}summary{cursor:pointer;color:var(--soft);font-size:14px}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:5px 20px;font-size:14px;margin:0}.facts dt{color:var(--soft)}.facts dd{margin:0;overflow-wrap:anywhere}
.right{color:var(--good)}.wrong{color:var(--bad)}
footer{margin-top:56px;color:var(--faint);font-size:13px;border-top:1px solid var(--line);padding-top:16px}
@media(max-width:640px){main{padding:24px 14px 48px}h1{font-size:27px}.panel{padding:14px}.facts{grid-template-columns:1fr;gap:0}.facts dd{margin-bottom:8px}
.films{grid-template-columns:repeat(auto-fill,minmax(200px,1fr))}.cards{grid-template-columns:1fr 1fr}.card .big{font-size:31px}}
@media print{.filters,#theme,.film input{display:none!important}section{break-inside:avoid}}
"""

SCRIPT = """
const root=document.documentElement;root.classList.add("js");
const theme=document.getElementById("theme");
const dark=()=>root.dataset.theme?root.dataset.theme=="dark":matchMedia("(prefers-color-scheme:dark)").matches;
const name=()=>{theme.textContent=dark()?"Light":"Dark"};name();
theme.onclick=()=>{root.dataset.theme=dark()?"light":"dark";name()};
const still=matchMedia("(prefers-reduced-motion:reduce)").matches;
const signed=(v,d)=>(v<0?"\\u2212":"+")+Math.abs(v).toFixed(d);
const films=[...document.querySelectorAll(".film")].map(node=>{
  const data=JSON.parse(node.querySelector("script").textContent),strip=node.querySelector(".strip");
  const slider=node.querySelector("input"),step=node.querySelector(".step"),chips=[...node.querySelectorAll(".tokens span b")];
  const film={node,at:0,playing:!still,seen:false,wait:0,count:data.steps.length};
  film.show=i=>{film.at=i;slider.value=i;strip.style.transform=`translateY(${-100*i/film.count}%)`;
    step.textContent="step "+(data.steps[i]+1);chips.forEach((chip,k)=>{chip.textContent=data.bins[i][k]});
    node.querySelector(".physical").textContent=data.actions[i]
      .map((v,k)=>data.kinds[k]=="m"?`${data.names[k]} ${signed(100*v,1)} cm`:data.kinds[k]=="rad"?`${data.names[k]} ${signed(57.2958*v,0)}\\u00b0`:null)
      .filter(Boolean).join(" \\u00b7 ")+(data.actions[i][0]>.5?" \\u00b7 stop":"")};
  slider.oninput=()=>{film.playing=false;film.show(+slider.value)};
  node.querySelector(".screen").onclick=()=>{film.playing=!film.playing;film.wait=0};
  film.show(0);return film});
const watch=new IntersectionObserver(found=>found.forEach(e=>{films.find(f=>f.node==e.target).seen=e.isIntersecting}));
films.forEach(film=>watch.observe(film.node));
setInterval(()=>films.forEach(film=>{if(!film.playing||!film.seen||film.wait-->0)return;
  const next=(film.at+1)%film.count;film.show(next);film.wait=next==film.count-1?8:0}),160);
const pick={outcome:"",split:"",control:""};
const apply=()=>films.forEach(({node})=>{node.hidden=Object.entries(pick).some(([key,want])=>want!=""&&node.dataset[key]!=want)});
document.querySelectorAll(".filters button").forEach(button=>{button.onclick=()=>{pick.outcome=button.dataset.outcome;
  document.querySelectorAll(".filters button").forEach(other=>other.setAttribute("aria-pressed",other==button));apply()}});
document.querySelectorAll(".filters select").forEach(select=>{select.onchange=()=>{pick[select.name]=select.value;apply()}});
"""
