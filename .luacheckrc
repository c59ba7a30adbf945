-- luacheck lua spec examples bench doc
std = "luajit"
max_line_length = 120
exclude_files = {"doc/types"}
files["spec"] = {std = "luajit+busted"}
