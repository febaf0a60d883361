// Small helpers; text from anywhere goes into the page as text alone.

export const $ = (id) => document.getElementById(id);

/** Make an element: make("td", {class: "x"}, "text", child). */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "colour") element.style.backgroundColor = value;
    else if (key === "share") element.style.width = `${Math.round(value * 1000) / 10}%`;
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((c) => c !== null && c !== undefined).map((c) => (c instanceof Node ? c : String(c))));
  return element;
}

export function fill(element, ...children) {
  element.replaceChildren(...children.filter((c) => c !== null));
}

export function css(colour, alpha = 1) {
  return `rgba(${colour[0]}, ${colour[1]}, ${colour[2]}, ${alpha})`;
}

export function percent(value, digits = 0) {
  return value === null || value === undefined ? "–" : `${(value * 100).toFixed(digits)} %`;
}

export function number(value) {
  if (value >= 1000) return Math.round(value).toLocaleString("en-GB").replaceAll(",", " ");
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

let noticeAgain = null;

export function notice(text, { good = false, again = null } = {}) {
  $("notice").hidden = !text;
  $("notice").classList.toggle("good", good);
  $("notice-text").textContent = text || "";
  noticeAgain = again;
  $("notice-again").hidden = !again;
}

export function told(error) {
  notice(error.fix ? `${error.message}. ${error.fix[0].toUpperCase()}${error.fix.slice(1)}.` : error.message);
}

$("notice-close").addEventListener("click", () => notice(""));
$("notice-again").addEventListener("click", () => { const again = noticeAgain; notice(""); if (again) again(); });
