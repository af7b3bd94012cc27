// node unpack.mjs FOLDER NAME...: unpacks files of the package's bin/, such as chromium.br, into FOLDER. Python cannot read Brotli.
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const [folder, ...names] = process.argv.slice(2);
process.env.TMPDIR = folder; // the package unpacks into the folder for temporary files and nowhere else
const { inflate } = await import("@sparticuz/chromium");
const bin = fileURLToPath(new URL("node_modules/@sparticuz/chromium/bin", import.meta.url));
await Promise.all(names.map((name) => inflate(join(bin, name))));
