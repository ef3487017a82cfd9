document.addEventListener("DOMContentLoaded", () => {
  // The theme's arrows that open a part of the menu have no text; a screen reader needs one.
  for (const arrow of document.querySelectorAll("nav li > details > summary:not([aria-label])")) {
    const parent = arrow.closest("li").querySelector("a");
    arrow.setAttribute("aria-label", `Pages below ${parent ? parent.textContent.trim() : "this one"}`);
  }
  // Each figure opens in full size.
  for (const image of document.querySelectorAll(".bd-article figure img, .bd-article .cell_output img")) {
    if (image.closest("a")) continue;
    const link = document.createElement("a");
    link.href = image.src;
    link.title = "Open in full size";
    image.replaceWith(link);
    link.append(image);
  }
  // The menu stands at the page that is open.
  const here = document.querySelector(".bd-sidebar-primary li.current.active:last-of-type, .bd-sidebar-primary a.current");
  const menu = document.querySelector(".bd-sidebar-primary");
  if (here && menu) menu.scrollTop = here.offsetTop - menu.clientHeight / 3;
});
