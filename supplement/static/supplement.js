// The theme's arrows that open a part of the menu have no text; a screen reader needs one.
document.addEventListener("DOMContentLoaded", () => {
  for (const arrow of document.querySelectorAll("nav li > details > summary:not([aria-label])")) {
    const parent = arrow.closest("li").querySelector("a");
    arrow.setAttribute("aria-label", `Pages below ${parent ? parent.textContent.trim() : "this one"}`);
  }
});
