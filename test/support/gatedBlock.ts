/** The places of a block with a gated MLP where activations can be seen, in order, with the roles of the maps that read there. */
export const sites = {
  attentionInput: ["q_proj", "k_proj", "v_proj"],
  attentionOutput: ["o_proj"],
  mlpInput: ["gate_proj", "up_proj"],
  mlpGate: [],
  mlpHidden: ["down_proj"],
} as const satisfies Record<string, readonly string[]>;

/** The roles of its linear maps. */
export const roles: readonly string[] = Object.values(sites).flat();

/** A number for each map. */
export const byRole = (value: (role: string) => number): Record<string, number> =>
  Object.fromEntries(roles.map((role) => [role, value(role)]));

/** The site that a map reads. */
export const siteOf = (role: string): keyof typeof sites =>
  (Object.keys(sites) as (keyof typeof sites)[]).find((site) => (sites[site] as readonly string[]).includes(role))!;
