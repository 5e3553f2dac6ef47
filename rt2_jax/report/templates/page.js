// Without this script films just play: it adds the theme's button, and films that stop at any frame.
const root = document.documentElement, theme = document.getElementById("theme");
root.classList.add("js");
const system = () => matchMedia("(prefers-color-scheme:dark)").matches ? "dark" : "light";
const dark = () => (root.dataset.theme || system()) == "dark";
const nameTheme = () => { theme.textContent = dark() ? "Light" : "Dark"; };
theme.onclick = () => { root.dataset.theme = dark() ? "light" : "dark"; nameTheme(); };
nameTheme();

const still = matchMedia("(prefers-reduced-motion:reduce)").matches;
const signed = (value, digits) => {
  const size = Math.abs(value).toFixed(digits);
  return +size == 0 ? size : (value < 0 ? "\u2212" : "+") + size;
};
// Unit of a card: how it is shown, factor, digits.
const units = {m: [" cm", 100, 1], rad: ["\u00b0", 180 / Math.PI, 0]};
const words = ({names, units: given, kinds}, action) => {
  if (kinds.some((kind, k) => kind == "terminate" && action[k] >= 0.5)) return "stop";
  const parts = [];
  names.forEach((name, k) => {
    if (kinds[k] == "terminate") return;
    const [unit, factor, digits] = units[given[k]] || [given[k] && " " + given[k], 1, 2];
    const number = `${name} ${signed(factor * action[k], digits)}`;
    // Neighbours of one unit share it.
    if (parts.length && parts.at(-1).unit == unit) parts.at(-1).numbers.push(number);
    else parts.push({unit, numbers: [number]});
  });
  return parts.map(({numbers, unit}) => numbers.join(", ") + unit).join(" \u00b7 ");
};
const films = [...document.querySelectorAll(".film")].map(node => {
  const data = JSON.parse(node.querySelector("script").textContent);
  const find = name => node.querySelector(name);
  const screen = find(".screen"), strip = find(".strip"), slider = find("input");
  const chips = node.querySelectorAll(".tokens b");
  const film = {node, at: 0, playing: !still, seen: false, wait: 0, count: data.steps.length};
  film.show = index => {
    film.at = index;
    slider.value = index;
    strip.style.transform = `translateY(${-100 * index / film.count}%)`;
    find(".step").textContent = `step ${data.steps[index] + 1}`;
    chips.forEach((chip, k) => { chip.textContent = data.bins[index][k]; });
    find(".physical").textContent = words(data, data.actions[index]);
  };
  film.play = on => { film.playing = on; film.wait = 0; screen.classList.toggle("paused", !on); };
  slider.oninput = () => { film.play(false); film.show(+slider.value); };
  screen.onclick = () => film.play(!film.playing);
  film.show(0);
  film.play(!still);
  return film;
});
const watch = new IntersectionObserver(found => found.forEach(entry => {
  films.find(film => film.node == entry.target).seen = entry.isIntersecting;
}));
films.forEach(film => watch.observe(film.node));
setInterval(() => films.forEach(film => {
  if (!film.playing || !film.seen || film.wait-- > 0) return;
  film.show((film.at + 1) % film.count);
  film.wait = film.at == film.count - 1 ? 8 : 0;
}), 160);

const wanted = {outcome: "", split: "", control: ""};
const filter = () => films.forEach(({node}) => {
  node.hidden = Object.entries(wanted).some(([key, value]) => value != "" && node.dataset[key] != value);
});
const buttons = document.querySelectorAll(".filters button");
buttons.forEach(button => { button.onclick = () => {
  wanted.outcome = button.dataset.outcome;
  buttons.forEach(other => other.setAttribute("aria-pressed", other == button));
  filter();
}; });
document.querySelectorAll(".filters select").forEach(select => { select.onchange = () => {
  wanted[select.name] = select.value;
  filter();
}; });
