/** The anchor of a heading as GitHub makes it: links to headings have to lead there on both. */
export const githubSlugs = (heading) =>
  heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\p{M} _-]/gu, "")
    .trim()
    .replaceAll(" ", "-");
