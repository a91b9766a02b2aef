export { type CalibrateRouteOptions, calibrateRoute } from "./calibrateRoute.js";
export type { Cloud } from "./cloud.js";
export { type CloudOptions, connectCloud } from "./connect.js";
export { parseRoute, type Route, type RouteRule, routeRules } from "./route.js";
export { expectedTokenMs, type Routing } from "./routing.js";
