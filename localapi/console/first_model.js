/** Which of several models to begin with. */

/** One that answers soon and downloads nothing; undefined where it is not known that one does. */
export function soonModel(offered) {
  return (
    offered.find((model) => model.state === "ready" && model.backend !== "echo") ??
    offered.find((model) => model.id === "demo")
  );
}

/** For a request that somebody only tries: nobody wants to wait for gigabytes then. */
export function exampleModel(offered) {
  return soonModel(offered) ?? offered.find((model) => model.backend === "echo") ?? offered[0];
}
