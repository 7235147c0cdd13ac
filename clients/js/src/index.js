export { backOff } from "./backoff.js";
export { EventParser } from "./parser.js";
export { Problem, problemOf, unreachable } from "./problem.js";
export { Tidegate } from "./tidegate.js";
export { withTicket } from "./ticket.js";
