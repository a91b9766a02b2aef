/** The parts of `tasks` that need Node.js; in browsers nothing imports this file. */

export { taskFolder } from "./taskFolder.node.js";
