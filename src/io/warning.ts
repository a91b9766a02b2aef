/** Something in a file that is not used, or that another program may read otherwise; the model runs all the same. */
export interface Warning {
  /** File name, URL or another name of the source. */
  file: string;
  /** Dotted path of the field, or a tensor name. */
  field: string;
  /** What is there and what is made of it. */
  problem: string;
}
