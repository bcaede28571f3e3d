/** Choice of the first model on a page. */

/** One that answers soon and downloads nothing; undefined where it is not known that one does. */
export function soonModel(offered) {
  return (
    offered.find((model) => model.state === "ready" && model.backend !== "echo") ??
    offered.find((model) => model.id === "demo")
  );
}

/** A model for a request that is only tried: no download of gigabytes should precede it. */
export function exampleModel(offered) {
  return soonModel(offered) ?? offered.find((model) => model.backend === "echo") ?? offered[0];
}
